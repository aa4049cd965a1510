"""Support sets that a call brings along: checked, learned, and remembered for a call that brings the same again."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain

from pydantic_core import to_json

from ..errors import SupportSetInvalid
from ..task import Arrays, Caller
from .accepting import start
from .decoding import Decoders
from .describing import decode_named, described_state
from .models import Served
from .preparing import check_ways, checked, state_of
from .refs import BySupport, Learned, Named
from .supports import Labelled

ENTRY_BYTES = 1024
"""About what is kept of a support set beside its content and the arrays of its state."""

Key = tuple[str, str, bool, bytes]
"""Tenant, digest of the bundle, and the whole content of a support set, as it came or as it was read: it is compared in
full, not by a hash."""


class RepeatedSupports:
    """What the latest support sets came to, by tenant, bundle and content; least recently used first out.

    Args:
        budget: Bytes; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bytes = 0
        self._known: OrderedDict[Key, Learned] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def key(self, caller: Caller, served: Served, examples: Sequence[Labelled], named: Named | None) -> Key | None:
        """What a support set is known by; None where nothing is kept."""
        if not self._budget:
            return None
        content = [[example.input, example.label, example.weight] for example in examples]
        parts = None if named is None else named.parts
        return caller.tenant, served.digest, False, to_json([content, parts], inf_nan_mode="constants")

    def key_of(self, caller: Caller, served: Served, content: bytes) -> Key | None:
        """The same of one that comes as it came before, to the byte."""
        return (caller.tenant, served.digest, True, content) if self._budget else None

    def find(self, key: Key | None) -> Learned | None:
        """What a support set came to, if that is known."""
        found = self._known.get(key) if key is not None else None
        if found is not None and key is not None:
            self._known.move_to_end(key)
        return found

    def keep(self, key: Key | None, learned: Learned) -> None:
        """Remember what a support set came to."""
        if key is None or key in self._known or _bytes(key, learned) > self._budget:
            return
        self._known[key] = learned
        self._bytes += _bytes(key, learned)
        while self._bytes > self._budget:
            self._bytes -= _bytes(*self._known.popitem(last=False))


def _bytes(key: Key, learned: Learned) -> int:
    return len(key[3]) + sum(array.nbytes for array in learned.state.arrays.values()) + ENTRY_BYTES


def folded_fields(learned: Learned, field: str) -> tuple[str, ...]:
    """The folded fields of the examples of a support set, by their place in the request.

    Args:
        learned: What it came to.
        field: Its place.
    """
    return tuple(
        chain.from_iterable(
            [f"{field}[{place}].input.{name}" for name in names] for place, names in enumerate(learned.taught) if names
        )
    )


class Lesson:
    """A support set on its way to a state.

    Args:
        served: The model.
        caller: Whose support set it is.
        task: The examples, and the task that learning starts from, if one is named.
        known: What earlier ones came to.
        decoders: Threads that cut texts into tokens.

    Raises:
        RequestInvalid, SupportSetInvalid, LabelUnknown: the examples are not valid.
    """

    def __init__(
        self, served: Served, caller: Caller, task: BySupport, known: RepeatedSupports, decoders: Decoders
    ) -> None:
        self._served, self._task, self._known, self._decoders = served, task, known, decoders
        self._named = start(served, task.named, task.field)
        rules = served.rules(self._named.id, described=True) if self._named is not None else served.rules()
        self._examples = checked(task.examples, rules, task.field)
        if task.content is None:
            self._key = known.key(caller, served, self._examples, self._named)
        else:
            self._key = known.key_of(caller, served, task.content)
        self._learned = known.find(self._key)
        self._features: Arrays | None = None
        self._taught: tuple[tuple[str, ...], ...] = ()

    @property
    def known(self) -> Learned | None:
        """What the support set comes to, if that is known."""
        return self._learned

    @property
    def examples(self) -> list[Labelled]:
        """Those whose inputs have to be encoded: none where the support set is known."""
        return [] if self._learned is not None else self._examples

    def give(self, features: Arrays, folded: Sequence[tuple[str, ...]]) -> None:
        """The features of the examples, each `[example, *feature]`, and the folded fields of each."""
        self._features, self._taught = features, tuple(folded)

    @property
    def folded(self) -> tuple[str, ...]:
        """The folded fields of the examples, by their place in the request; once it is learned."""
        return () if self._learned is None else folded_fields(self._learned, self._task.field)

    async def learned(self) -> Learned:
        """The state that the examples define.

        Raises:
            HandfulError: they cannot be learned from.
        """
        if self._learned is None:
            try:
                self._learned = await self._learn()
            except SupportSetInvalid as error:  # of a row of the call, it may be
                raise SupportSetInvalid(error.detail, field=self._task.field, allowed=error.allowed) from error
            self._known.keep(self._key, self._learned)
        return self._learned

    async def _learn(self) -> Learned:
        if self._features is None:
            raise RuntimeError("the examples were not encoded")
        if self._named is None:
            return Learned(await state_of(self._served, self._features, self._examples), (), self._taught)
        described = await decode_named(self._served, self._named, self._decoders)
        labels = [example.label for example in self._examples]
        check_ways(labels, described.labels, self._served.manifest.ways, self._task.field)
        prior = await described_state(self._served, described)
        state = await state_of(self._served, self._features, self._examples, prior)
        return Learned(state, described.folded, self._taught)
