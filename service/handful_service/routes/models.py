"""`GET /v1/models…`: what is served."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from ..answers import ModelAnswer, ModelList, TaskAnswer, TaskList, VersionAnswer, VersionList
from ..bundle.tasks import KnownTask
from ..predictor.models import Model, Served
from .common import AnyCaller, ModelName, ServiceDep, VersionDep

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", response_model_exclude_none=True)
async def list_models(caller: AnyCaller, service: ServiceDep) -> ModelList:
    """All models."""
    return ModelList(models=[_model(model) for model in service.models.all()])


@router.get("/{model}", response_model_exclude_none=True)
async def get_model(caller: AnyCaller, model: ModelName, service: ServiceDep) -> ModelAnswer:
    """A model: what its newest version takes, gives and allows."""
    return _model(service.models.model(model))


@router.get("/{model}/versions", response_model_exclude_none=True)
async def list_versions(caller: AnyCaller, model: ModelName, service: ServiceDep) -> VersionList:
    """All versions of a model."""
    found = service.models.model(model)
    return VersionList(model=model, versions=[_version(found, number) for number in sorted(found.versions)])


@router.get("/{model}/tasks", response_model_exclude_none=True)
async def list_tasks(caller: AnyCaller, model: ModelName, service: ServiceDep, version: VersionDep) -> TaskList:
    """The known tasks of a model."""
    served: Served = service.models.version(model, version)
    known = served.bundle.known_tasks
    tasks = [_task(entry, known[entry["id"]]) for entry in served.bundle.tasks if entry["id"] in known]
    return TaskList(model=model, version=served.manifest.version, tasks=tasks, descriptors=served.manifest.descriptors)


def _task(entry: Mapping[str, Any], known: KnownTask) -> TaskAnswer:
    told = {key: entry.get(key) for key in ("description", "metadata", "text", "evaluation", "advice")}
    labels = [label for _, label in known.labels.present]
    return TaskAnswer(id=entry["id"], kind=known.output.kind, labels=labels or None, shots=known.shots, **told)


def _model(model: Model) -> ModelAnswer:
    newest = model.newest.manifest.version
    return ModelAnswer(
        name=model.name, versions=sorted(model.versions), labels=dict(model.labels), newest=_version(model, newest)
    )


def _version(model: Model, number: int) -> VersionAnswer:
    served = model.versions[number]
    manifest = served.manifest
    return VersionAnswer(
        version=number,
        labels=sorted(label for label, version in model.labels.items() if version == number),
        digest=served.digest,
        description=manifest.description,
        inputs={name: spec.model_dump(exclude_none=True) for name, spec in manifest.inputs.items()},
        accepts=list(manifest.accepts),
        descriptors=manifest.descriptors,
        output=manifest.output.model_dump(exclude={"calibration"}, exclude_none=True),
        limits=manifest.limits.model_dump(exclude_none=True),
        invariant=list(manifest.invariant),
        state_bytes=manifest.state_bytes,
        card=served.bundle.card,
    )
