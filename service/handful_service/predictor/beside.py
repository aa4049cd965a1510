"""Calls that run beside each other, each of which may fail alone."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from ..errors import HandfulError

T = TypeVar("T")


async def all_of(calls: Sequence[Awaitable[T]]) -> list[T | HandfulError]:
    """What each call gives, or its error, in order. All of them are over then, even where one raises anything else."""
    if len(calls) == 1:  # needs no task of its own
        try:
            return [await calls[0]]
        except HandfulError as error:
            return [error]
    found: list[T | HandfulError] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, HandfulError):
            raise result
        found.append(result)
    return found
