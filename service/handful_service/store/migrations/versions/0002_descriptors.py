"""The descriptor of the task that an adaptation starts from.

There is no way back: restore a copy instead.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column; null where no task is named."""
    op.add_column("adaptations", sa.Column("descriptor", sa.JSON(none_as_null=True)))
