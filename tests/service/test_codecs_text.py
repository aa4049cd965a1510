"""Texts: what the bundle's tokenizer makes of them, and what is refused with its place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_text import WORDS, ids, tokenizer_json

from handful_service.bundle.inputs import TextOptions
from handful_service.codecs.text import Tokenizer, decode_text
from handful_service.errors import BundleInvalid, InputInvalid

TOKENIZER = Tokenizer(tokenizer_json(), file="assets/tokenizer.json")
CUT = TextOptions(max_characters=40, truncate=True)
WHOLE = TextOptions(max_characters=40, truncate=False)


def decode(value: Any, options: TextOptions = CUT, tokens: int = 4) -> list[int]:
    array = decode_text(value, options, tokens, TOKENIZER, field="inputs[0]")
    assert array.dtype == "int64"
    return array.tolist()


def test_a_text_is_the_ids_of_its_words_padded_with_zeros() -> None:
    assert decode("How many Pages") == [2, 3, 4, 0]
    assert decode("how") == [2, 0, 0, 0]
    assert decode("how zebra") == [2, 1, 0, 0]


@given(st.lists(st.sampled_from(WORDS[2:]), min_size=1, max_size=8))
def test_a_longer_text_is_cut_or_refused_as_declared(words: list[str]) -> None:
    text = " ".join(words)
    assert decode(text) == (ids(text[:40]) + [0] * 4)[:4]
    if len(words) <= 4 and len(text) <= 40:
        assert decode(text, WHOLE) == decode(text)
    else:
        with pytest.raises(InputInvalid):
            decode(text, WHOLE)


def test_characters_are_cut_before_words_are_looked_for() -> None:
    assert decode(" " * 37 + "how many") == [2, 0, 0, 0]
    assert decode("how" + "x" * 10**6) == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("value", "options", "found", "allowed"),
    [
        (7, CUT, "is a number", "a string, of which 40 characters count"),
        (None, CUT, "is null", "a string"),
        (["how"], CUT, "is a list", "a string"),
        ("", CUT, "is empty", "a string, of which 40 characters count"),
        (" \n\t", CUT, "is empty", "a string"),
        (" " * 40 + "how", CUT, "is empty", "a string"),
        ("x" * 41, WHOLE, "has 41 characters", "1 to 40 characters"),
        ("how many pages is it", WHOLE, "has 5 tokens", "at most 4"),
        ("\ud800", CUT, "half of a surrogate pair", "whole characters"),
    ],
)
def test_what_is_no_text_is_refused_with_what_is_allowed(
    value: Any, options: TextOptions, found: str, allowed: str
) -> None:
    with pytest.raises(InputInvalid) as refused:
        decode(value, options)
    assert refused.value.field == "inputs[0]"
    assert found in refused.value.detail
    assert allowed in (refused.value.allowed or "")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xff", b'{"model": {"type": "Nothing"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(BundleInvalid) as refused:
        Tokenizer(content, file="assets/tokenizer.json")
    assert refused.value.field == "assets/tokenizer.json"
