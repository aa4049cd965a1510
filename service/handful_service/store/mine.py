"""The rows of one adaptation, in statements that are built once: building one costs more than SQLite takes for it."""

from typing import Any

from sqlalchemy import ColumnElement, Table, and_, bindparam

from .values import Key


def mine(table: Table) -> ColumnElement[bool]:
    """The rows of a table that belong to an adaptation, whose key is given when the statement is executed."""
    names = ("tenant", "model", "id")
    return and_(*(table.c[name] == bindparam(f"key_{name}") for name in names))


def named(key: Key) -> dict[str, Any]:
    """The parameters of `mine`."""
    return {"key_tenant": key.tenant, "key_model": key.model, "key_id": key.id}
