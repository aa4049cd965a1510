"""States with all that answering needs, and statistics apart from them.

What earlier servers computed is dropped: states are computed again from the examples, each when it is first asked for.

There is no way back: restore a copy instead.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KEY = ("tenant", "model", "id")


def upgrade() -> None:
    """Predictions read a state without its statistics, and without the examples behind it."""
    op.drop_table("states")
    op.create_table(
        "states",
        *_names(*KEY, "digest"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("shots", sa.Double(), nullable=False),
        sa.Column("task", sa.Text()),
        sa.Column("described", sa.Boolean(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("phi", sa.LargeBinary(), nullable=False),
        _belongs_to("adaptations", *KEY),
    )
    op.create_table(
        "statistics",
        *_names(*KEY, "digest"),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        _belongs_to("adaptations", *KEY),
    )


def _names(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, NAME, primary_key=True) for name in names]


def _belongs_to(parent: str, *names: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(names, [f"{parent}.{name}" for name in names], ondelete="CASCADE")
