"""`/v1/models/{model}/adaptations`: stored tasks as a resource."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from ..answers import (
    AdaptationAnswer,
    AdaptationItem,
    AdaptationList,
    ChangeAnswer,
    ExampleAnswer,
    LabelAnswer,
    TaskDescriptor,
    WrittenAnswer,
)
from ..predictor.changes import ExampleChange, LabelCount, Written, count_labels
from ..schemas import ExamplesRequest, PutRequest
from ..task import ID
from .bodies import body_schema, json_body
from .common import (
    AdaptationId,
    AdaptCaller,
    ExampleId,
    ModelName,
    PreconditionDep,
    ServiceDep,
    VersionDep,
    etag,
)

router = APIRouter(prefix="/v1/models/{model}/adaptations", tags=["adaptations"])


@router.get("", response_model=AdaptationList)
async def list_adaptations(
    caller: AdaptCaller,
    model: ModelName,
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="Adaptations on a page.")] = 100,
    after: Annotated[str | None, Query(pattern=ID, description="The `next` of the page before.")] = None,
) -> AdaptationList:
    """Your adaptations of a model, by id."""
    found = await service.adaptations.list(caller, model, after=after, limit=limit + 1)
    items = [
        AdaptationItem(
            id=summary.key.id,
            revision=summary.revision,
            labels=[label for label in summary.labels if label is not None],
            examples=summary.examples,
            created_at=summary.created_at,
            updated_at=summary.updated_at,
        )
        for summary in found[:limit]
    ]
    return AdaptationList(adaptations=items, next=items[-1].id if len(found) > limit else None)


@router.put(
    "/{id}",
    response_model=WrittenAnswer,
    responses={201: {"model": WrittenAnswer}},
    openapi_extra=body_schema(PutRequest),
)
async def put_adaptation(
    caller: AdaptCaller,
    model: ModelName,
    id: AdaptationId,
    request: Annotated[PutRequest, Depends(json_body(PutRequest))],
    service: ServiceDep,
    precondition: PreconditionDep,
) -> Response:
    """Create an adaptation from a support set, or replace all its examples and its task (201 where it is new)."""
    changes = [
        ExampleChange(
            input=example.input,
            label=example.label,
            weight=example.weight,
            field=f"support[{place}]",
            example_id=example.example_id,
            source=example.source,
        )
        for place, example in enumerate(request.support)
    ]
    task = None if request.task is None else request.task.model_dump(exclude_none=True)
    written = await service.adaptations.put(caller, model, request.version, id, changes, precondition, task)
    return _written(model, written, created=written.created)


@router.post("/{id}/examples", response_model=WrittenAnswer, openapi_extra=body_schema(ExamplesRequest))
async def post_examples(
    caller: AdaptCaller,
    model: ModelName,
    id: AdaptationId,
    request: Annotated[ExamplesRequest, Depends(json_body(ExamplesRequest))],
    service: ServiceDep,
    precondition: PreconditionDep,
) -> Response:
    """Add examples, or correct those whose id is known. The same event twice changes nothing."""
    changes = [
        ExampleChange(
            input=example.input,
            label=example.label,
            weight=example.weight,
            field=f"examples[{place}]",
            example_id=example.example_id,
            event_id=example.event_id,
            source=example.source,
        )
        for place, example in enumerate(request.examples)
    ]
    written = await service.adaptations.add(caller, model, request.version, id, changes, precondition)
    return _written(model, written)


@router.delete("/{id}/examples/{example_id}", response_model=WrittenAnswer)
async def delete_example(
    caller: AdaptCaller,
    model: ModelName,
    id: AdaptationId,
    example_id: ExampleId,
    service: ServiceDep,
    precondition: PreconditionDep,
    version: VersionDep,
    event_id: Annotated[str | None, Query(pattern=ID, description="Makes a repeated call harmless.")] = None,
) -> Response:
    """Unlearn one example, exactly."""
    written = await service.adaptations.remove(caller, model, version, id, example_id, event_id, precondition)
    return _written(model, written)


@router.get("/{id}", response_model=AdaptationAnswer)
async def get_adaptation(
    caller: AdaptCaller, model: ModelName, id: AdaptationId, service: ServiceDep, response: Response
) -> AdaptationAnswer:
    """An adaptation with its examples, without their inputs."""
    found = await service.adaptations.get(caller, model, id)
    response.headers["ETag"] = etag(found.revision)
    counts = count_labels([(example.label, example.weight) for example in found.examples])
    examples = [
        ExampleAnswer(
            example_id=example.example_id,
            label=example.label,
            weight=example.weight,
            source=example.source,
            created_at=example.created_at,
        )
        for example in found.examples
    ]
    return AdaptationAnswer(
        model=model,
        id=id,
        revision=found.revision,
        task=None if found.descriptor is None else TaskDescriptor.model_validate(found.descriptor),
        labels=_labels(counts),
        examples=examples,
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


@router.delete("/{id}", status_code=204, response_class=Response)
async def delete_adaptation(
    caller: AdaptCaller, model: ModelName, id: AdaptationId, service: ServiceDep, precondition: PreconditionDep
) -> None:
    """Delete an adaptation with all its data."""
    await service.adaptations.delete(caller, model, id, precondition)


def _labels(counts: dict[str, LabelCount]) -> dict[str, LabelAnswer]:
    return {label: LabelAnswer(examples=count.examples, weight=count.weight) for label, count in counts.items()}


def _written(model: str, written: Written, *, created: bool = False) -> Response:
    answer = WrittenAnswer(
        model=model,
        version=written.version,
        id=written.id,
        revision=written.revision,
        labels=_labels(dict(written.labels)),
        examples=written.examples,
        results=[
            ChangeAnswer(
                example_id=result.example_id,
                action=result.action,
                revision=result.revision,
                repeated=result.repeated,
                folded=list(result.folded) or None,
            )
            for result in written.results
        ],
        folded=list(written.folded) or None,
    )
    headers = {"ETag": etag(written.revision)}
    return Response(answer.model_dump_json(), 201 if created else 200, headers, "application/json")
