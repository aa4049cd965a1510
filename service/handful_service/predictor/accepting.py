"""Which ways of naming a task a model takes, looked at before any work is done."""

from typing import Literal

from ..errors import NotAccepted
from .describing import check_named
from .models import Served
from .reading import ReadOptions, check_options
from .refs import Base, ByAdaptation, ByLearned, BySupport, ByTask, Named, TaskRef

_REFUSALS = {
    "base": "no task is named",
    "support": "the model learns from no support set",
    "task": "the model knows no tasks",
    "task+support": "the model learns nothing beside a task that it is told",
}


def must_accept(served: Served, kind: Literal["base", "support", "task", "task+support"], place: str) -> None:
    """Refuse a way of naming a task that the model does not take.

    Raises:
        NotAccepted: it is not in `accepts`.
    """
    if kind not in served.accepts:
        what = _REFUSALS[kind]
        raise NotAccepted(what, field=place, allowed=f"what the model accepts: {list(served.manifest.accepts)}")


def resolved(served: Served, task: TaskRef) -> TaskRef:
    """The reference without what goes without saying.

    An empty support set is none: the task beside it answers, or the base.
    """
    if not isinstance(task, BySupport):
        return task
    if not task.examples and task.named is not None:
        return ByTask((task.named,), task.named.field)
    if not task.examples and "base" in served.manifest.accepts:
        return Base(task.field)
    return task


def start(served: Served, named: Named | None, place: str) -> Named | None:
    """The task that learning starts from: the named one, or the base, where adapt takes the state of a task at all."""
    base = served.manifest.base_task
    if named is None and served.manifest.takes_prior and base is not None:
        return Named(base, field=place)
    return named


def check_task(served: Served, task: TaskRef, options: ReadOptions) -> None:
    """Refuse a task that is named in a way that the model does not take, or asked for what its answers have not.

    Raises:
        NotAccepted: the way, or an option, is not taken.
        TaskNotFound: the model knows no task of the id.
    """
    if isinstance(task, ByTask):
        must_accept(served, "task", task.field)
        for named in task.names:
            check_named(served, named)
            check_options(served.reader(named.id)[0], options, named.id)
    elif isinstance(task, BySupport):
        must_accept(served, "task+support" if task.named else "support", task.field)
        if task.named is not None:
            check_named(served, task.named)
            check_learns(served, task.named)
    elif isinstance(task, ByAdaptation):
        if served.accepts.isdisjoint(("support", "task+support")):
            must_accept(served, "support", task.field)
    elif isinstance(task, ByLearned):
        return  # for it was taken before
    else:
        must_accept(served, "base", task.field)


def check_learns(served: Served, named: Named) -> None:
    """Refuse a task whose answers are of another kind than the labels that the model learns from.

    Raises:
        NotAccepted: they are.
    """
    support, output = served.manifest.support, served.reader(named.id)[0]
    if support is not None and output.kind != support.kind:
        raise NotAccepted(
            f"task {named.id!r} answers with the kind {output.kind}",
            field=named.id_field,
            allowed=f"a task of the kind that the model learns from: {support.kind}",
        )
