"""Requests that must be refused: what is sent, and what the answer must be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.tasks import Glyphs

MAX_BODY_BYTES = 2**20
PREDICT = "/v1/models/glyphs/predict"
ADAPTATIONS = "/v1/models/glyphs/adaptations"
ALICE = f"{ADAPTATIONS}/alice"
JSON = {"Content-Type": "application/json"}

_GLYPHS = Glyphs.read()
SUPPORT = _GLYPHS.support(_GLYPHS.names[:2])
INPUT = _GLYPHS.queries(_GLYPHS.names)[0]
GOOD = {"inputs": [INPUT], "support": SUPPORT}


@dataclass(frozen=True)
class Bad:
    """A request, and its refusal.

    Attributes:
        place: The field that the problem must name.
        body: JSON, or bytes that are sent as they are.
    """

    what: str
    status: int
    slug: str
    place: str | None
    body: Any = None
    method: str = "POST"
    path: str = PREDICT
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def with_text(text: str) -> bytes:
    """A good body whose first input is a piece of JSON text."""
    return json.dumps({**GOOD, "inputs": ["here"]}).replace('"here"', text).encode()


def with_example(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "support": [SUPPORT[0], {**SUPPORT[1], **changes}]}


BODIES = [
    Bad("no body", 400, "not-json", "body", b""),
    Bad("not JSON", 400, "not-json", "body", b"inputs=1"),
    Bad("half a document", 400, "not-json", "body", b'{"inputs": ['),
    Bad("two documents", 400, "not-json", "body", b"{} {}"),
    Bad("a byte order mark", 400, "not-json", "body", b"\xef\xbb\xbf{}"),
    Bad("UTF-16", 400, "not-json", "body", '{"inputs": []}'.encode("utf-16")),
    Bad("invalid UTF-8", 400, "not-json", "body", with_text('"here"').replace(b"here", b"\xff")),
    Bad("a lone surrogate", 400, "not-json", "body", with_text(r'"\ud800"')),
    Bad("100,000 brackets", 400, "not-json", "body", b"[" * 100_000),
    Bad("100,000 brackets as an input", 400, "not-json", "body", with_text("[" * 100_000 + "]" * 100_000)),
    Bad("100,000 objects", 400, "not-json", "body", b'{"inputs":' * 100_000),
    Bad("a number of 5000 digits", 400, "not-json", "body", with_text("9" * 5000)),
    Bad("a list", 422, "request-invalid", "body", []),
    Bad("null", 422, "request-invalid", "body", b"null"),
    Bad("NaN as an input", 422, "input-invalid", "inputs[0]", with_text("NaN")),
    Bad("Infinity as an input", 422, "input-invalid", "inputs[0]", with_text("-Infinity")),
    Bad("1e999 as an input", 422, "input-invalid", "inputs[0]", with_text("1e999")),
    Bad("null as an input", 422, "input-invalid", "inputs[0]", {**GOOD, "inputs": [None]}),
    Bad("inputs of another type", 422, "request-invalid", "inputs", {**GOOD, "inputs": INPUT}),
    Bad("no inputs", 422, "request-invalid", "inputs", {**GOOD, "inputs": []}),
    Bad("no rows", 422, "request-invalid", "rows", {"rows": []}),
    Bad("inputs and rows", 422, "request-invalid", "inputs", {**GOOD, "rows": [{"input": INPUT, "support": SUPPORT}]}),
    Bad("neither inputs nor rows", 422, "request-invalid", "inputs", {"support": SUPPORT}),
    Bad("adaptation and support", 422, "request-invalid", "support", {**GOOD, "adaptation": "alice"}),
    Bad(
        "both in a row",
        422,
        "request-invalid",
        "rows[0].support",
        {"rows": [{"input": INPUT, "support": SUPPORT, "adaptation": "alice"}]},
    ),
    Bad("support beside rows", 422, "request-invalid", "support", {"rows": [{"input": INPUT}], "support": SUPPORT}),
    Bad("partial without rows", 422, "request-invalid", "partial", {**GOOD, "partial": True}),
    Bad("no task", 422, "not-accepted", "support", {"inputs": [INPUT]}),
    Bad("no task in a row", 422, "not-accepted", "rows[0].support", {"rows": [{"input": INPUT}]}),
    Bad("an empty support set", 422, "support-set-invalid", "support", {**GOOD, "support": []}),
    Bad(
        "an empty one in a row",
        422,
        "support-set-invalid",
        "rows[0].support",
        {"rows": [{"input": INPUT, "support": []}]},
    ),
    Bad("an unknown key", 422, "request-invalid", "body", {**GOOD, "temperature": 1}),
    Bad("an unknown option", 422, "request-invalid", "options", {**GOOD, "options": {"topk": 1}}),
    Bad("an unknown key of an example", 422, "request-invalid", "support[1]", with_example(lable="x")),
    Bad("an unknown key of a row", 422, "request-invalid", "rows[0]", {"rows": [{"input": INPUT, "id": 1}]}),
    Bad(
        "an example without an input", 422, "request-invalid", "support[0].input", {**GOOD, "support": [{"label": "a"}]}
    ),
    Bad(
        "an example without a label",
        422,
        "request-invalid",
        "support[0].label",
        {**GOOD, "support": [{"input": INPUT}]},
    ),
    Bad("a number as a label", 422, "request-invalid", "support[1].label", with_example(label=7)),
    Bad("an empty label", 422, "support-set-invalid", "support[1].label", with_example(label="")),
    Bad("a label of 257 characters", 422, "support-set-invalid", "support[1].label", with_example(label="é" * 257)),
    Bad("NUL in a label", 422, "support-set-invalid", "support[1].label", with_example(label="a\0b")),
    Bad("weight 0", 422, "support-set-invalid", "support[1].weight", with_example(weight=0)),
    Bad("weight -1", 422, "support-set-invalid", "support[1].weight", with_example(weight=-1)),
    Bad("weight NaN", 422, "request-invalid", "support[1].weight", with_example(weight=float("nan"))),
    Bad("weight true", 422, "request-invalid", "support[1].weight", with_example(weight=True)),
    Bad("weight as a string", 422, "request-invalid", "support[1].weight", with_example(weight="1")),
    Bad("a version that is no version", 422, "request-invalid", "version", {**GOOD, "version": True}),
    Bad("version 0", 422, "request-invalid", "version", {**GOOD, "version": 0}),
    Bad("version 1.5", 422, "request-invalid", "version", {**GOOD, "version": 1.5}),
    Bad("an unknown version", 404, "model-not-found", "version", {**GOOD, "version": 99}),
    Bad("an unknown adaptation", 404, "adaptation-not-found", "adaptation", {"inputs": [INPUT], "adaptation": "x"}),
    Bad("an id with a slash", 422, "request-invalid", "adaptation", {"inputs": [INPUT], "adaptation": "a/b"}),
    Bad("confidence 1", 422, "request-invalid", "options.confidence", {**GOOD, "options": {"confidence": 1.0}}),
    Bad("top 0", 422, "request-invalid", "options.top", {**GOOD, "options": {"top": 0}}),
    Bad("min_revision 0", 422, "request-invalid", "options.min_revision", {**GOOD, "options": {"min_revision": 0}}),
    Bad("on_missing", 422, "request-invalid", "options.on_missing", {**GOOD, "options": {"on_missing": "ignore"}}),
]

LIMITS = [
    Bad("1025 inputs", 413, "too-large", "inputs", {**GOOD, "inputs": ["x"] * 1025}),
    Bad(
        "more support examples than any queue takes",
        413,
        "too-large",
        "rows",
        {"rows": [{"input": "x", "support": [{"input": "x", "label": "a"}] * 7}] * 513},
    ),
    Bad("1025 rows", 413, "too-large", "rows", {"rows": [{"input": "x", "adaptation": "alice"}] * 1025}),
    Bad(
        "65 ways",
        422,
        "support-set-invalid",
        "support",
        {**GOOD, "support": [{"input": "x", "label": f"{place}"} for place in range(65)]},
    ),
    Bad("101 shots", 422, "support-set-invalid", "support", {**GOOD, "support": [{"input": "x", "label": "a"}] * 101}),
    Bad(
        "1001 examples",
        422,
        "support-set-invalid",
        "support",
        {**GOOD, "support": [{"input": "x", "label": f"{place % 60}"} for place in range(1001)]},
    ),
    Bad(
        "65 ways to keep",
        422,
        "support-set-invalid",
        "support",
        method="PUT",
        path=ALICE,
        body={"support": [{"input": "x", "label": f"{place}"} for place in range(65)]},
    ),
    Bad(
        "100 shots more",
        422,
        "support-set-invalid",
        "examples",
        path=f"{ALICE}/examples",
        body={"examples": [{"input": "x", "label": SUPPORT[0]["label"]}] * 100},
    ),
    Bad("a body over the limit", 413, "too-large", "body", b" " * (MAX_BODY_BYTES + 1)),
]
