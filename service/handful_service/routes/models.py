"""`GET /v1/models…`: what is served."""

from fastapi import APIRouter

from ..predictor.models import Model, Served
from ..schemas import ModelAnswer, ModelList, TaskList, VersionAnswer, VersionList
from .common import CallerDep, ModelName, ServiceDep, VersionDep

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(service: ServiceDep, caller: CallerDep) -> ModelList:
    """All models."""
    return ModelList(models=[_model(model) for model in service.models.all()])


@router.get("/{model}")
async def get_model(model: ModelName, service: ServiceDep, caller: CallerDep) -> ModelAnswer:
    """A model: what its newest version takes, gives and allows."""
    return _model(service.models.model(model))


@router.get("/{model}/versions")
async def list_versions(model: ModelName, service: ServiceDep, caller: CallerDep) -> VersionList:
    """All versions of a model."""
    found = service.models.model(model)
    return VersionList(model=model, versions=[_version(found, number) for number in sorted(found.versions)])


@router.get("/{model}/tasks")
async def list_tasks(model: ModelName, service: ServiceDep, caller: CallerDep, version: VersionDep) -> TaskList:
    """The known tasks of a model."""
    served: Served = service.models.version(model, version)
    return TaskList(model=model, version=served.manifest.version, tasks=served.bundle.tasks)


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
        output=manifest.output.model_dump(exclude={"calibration"}, exclude_none=True),
        limits=manifest.limits.model_dump(exclude_none=True),
        invariant=list(manifest.invariant),
        state_bytes=manifest.state_bytes,
        card=served.bundle.card,
    )
