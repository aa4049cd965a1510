"""Texts in JSON: a string, which the bundle's own tokenizer cuts into the ids of subwords."""

from typing import Any

import numpy as np
from tokenizers import Tokenizer as _Tokenizer

from ..bundle.inputs import TextOptions
from ..errors import BundleInvalid, InputInvalid
from ..task import Array
from .kinds import kind_of


class Tokenizer:
    """The tokenizer of a bundle. Threads may share it.

    Args:
        content: A `tokenizer.json`, the format of the `tokenizers` library. What it says of padding and truncation
            is left out: the manifest says so.

    Raises:
        BundleInvalid: it cannot be read.
    """

    def __init__(self, content: bytes, *, file: str) -> None:
        try:
            self._tokenizer = _Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises plain exceptions
            raise BundleInvalid(f"is no tokenizer: {error}", field=file) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids(self, text: str) -> list[int]:
        """The ids of the text's subwords, in order."""
        return list(self._tokenizer.encode(text).ids)


def decode_text(value: Any, options: TextOptions, tokens: int, tokenizer: Tokenizer, *, field: str) -> Array:
    """The ids of one text: int64 `[tokens]`, padded with 0.

    Args:
        value: What stood in the request.
        options: What the bundle says of texts.
        tokens: The length of the array.
        tokenizer: The bundle's.
        field: The place in the request, for messages.

    Raises:
        InputInvalid: not a string, one without words, or one that is too long where that is not cut.
    """
    most = options.max_characters
    counted = f"a string, of which {most} characters count"
    allowed = counted if options.truncate else f"a string of 1 to {most} characters"
    if not isinstance(value, str):
        raise InputInvalid(f"is {kind_of(value)}", field=field, allowed=allowed)
    if len(value) > most and not options.truncate:
        raise InputInvalid(f"has {len(value)} characters", field=field, allowed=allowed)
    text = value[:most]  # before any work is done on it
    if not text.strip():
        raise InputInvalid("is empty", field=field, allowed=allowed)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputInvalid("holds half of a surrogate pair", field=field, allowed="whole characters") from None
    ids = tokenizer.ids(text)
    if not ids:
        raise InputInvalid("holds no word that the model knows", field=field, allowed=allowed)
    if len(ids) > tokens and not options.truncate:
        raise InputInvalid(f"has {len(ids)} tokens", field=field, allowed=f"at most {tokens}")
    array = np.zeros(tokens, np.int64)
    array[: len(ids)] = ids[:tokens]
    return array
