"""Adaptations, with their examples, features, states and events.

There is no way back: restore a copy instead.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KEY = ("tenant", "model", "id")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """The tables of the first release."""
    op.create_table("revision_counters", *_names("tenant", "model"), sa.Column("last", sa.BigInteger(), nullable=False))
    op.create_table(
        "adaptations",
        *_names(*KEY),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    _create_examples()
    op.create_table(
        "states",
        *_names(*KEY, "digest"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("statistics", sa.LargeBinary()),
        sa.Column("phi", sa.LargeBinary(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        _belongs_to("adaptations", *KEY),
    )
    op.create_table(
        "events",
        *_names(*KEY, "event_id"),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        _belongs_to("adaptations", *KEY),
    )


def _create_examples() -> None:
    op.create_table(
        "examples",
        *_names(*KEY, "example_id"),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("source", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("input", sa.LargeBinary()),
        sa.UniqueConstraint(*KEY, "position", name="examples_position"),
        _belongs_to("adaptations", *KEY),
    )
    op.create_table(
        "features",
        *_names(*KEY, "example_id", "digest"),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        _belongs_to("examples", *KEY, "example_id"),
    )


def _names(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, NAME, primary_key=True) for name in names]


def _belongs_to(parent: str, *names: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(names, [f"{parent}.{name}" for name in names], ondelete="CASCADE")
