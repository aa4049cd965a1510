"""Who asks: the one dependency that every use case's caller comes from."""

from .task import Caller


def caller() -> Caller:
    """The caller of a request. Without API keys everyone is the tenant `default`."""
    return Caller()
