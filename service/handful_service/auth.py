"""Who asks: the one dependency that every use case's caller comes from."""

from .task import Caller


async def caller() -> Caller:
    """The caller of a request. Without API keys everyone is the tenant `default`.

    Like all dependencies here it is a coroutine: FastAPI runs plain functions in threads, a hop each.
    """
    return Caller()
