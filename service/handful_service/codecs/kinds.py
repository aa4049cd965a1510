"""What a value of a request is, in the words of JSON."""

from typing import Any

_WORDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def kind_of(value: Any) -> str:
    """The kind of a decoded JSON value, for messages."""
    return _WORDS.get(type(value), "no JSON value")
