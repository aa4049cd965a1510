"""The tables, as the newest migration leaves them; a test holds the two together."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKeyConstraint,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD_REVISION = "0003"
"""The newest migration. Known here, a start on an up-to-date database need not import Alembic (0.3 s)."""

METADATA = MetaData()

# Names compare and sort byte by byte on both databases: SQLite does so by itself, PostgreSQL when told.
NAME = Text().with_variant(Text(collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, with its time zone on the Python side; SQLite keeps it without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; one without a time zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _key(*more: str) -> list[Column[str]]:
    return [Column(name, NAME, primary_key=True) for name in ("tenant", "model", "id", *more)]


def _belongs_to(parent: str, *more: str) -> ForeignKeyConstraint:
    names = ["tenant", "model", "id", *more]
    return ForeignKeyConstraint(names, [f"{parent}.{name}" for name in names], ondelete="CASCADE")


# One counter per tenant and model: a revision is never used twice, not even by an adaptation that is deleted
# and made again, and yet no deleted id is kept, and nobody can infer from a revision what other tenants do.
REVISION_COUNTERS = Table(
    "revision_counters",
    METADATA,
    Column("tenant", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

ADAPTATIONS = Table(
    "adaptations",
    METADATA,
    *_key(),
    Column("revision", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("descriptor", JSON(none_as_null=True)),
)

EXAMPLES = Table(
    "examples",
    METADATA,
    *_key("example_id"),
    Column("position", BigInteger, nullable=False),
    Column("label", Text, nullable=False),
    Column("weight", Double, nullable=False),
    Column("source", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("input", LargeBinary),
    UniqueConstraint("tenant", "model", "id", "position", name="examples_position"),
    _belongs_to("adaptations"),
)

FEATURES = Table(
    "features",
    METADATA,
    *_key("example_id", "digest"),
    Column("checksum", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    _belongs_to("examples", "example_id"),
)

STATES = Table(
    "states",
    METADATA,
    *_key("digest"),
    Column("revision", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("shots", Double, nullable=False),
    Column("task", Text),
    Column("described", Boolean, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("phi", LargeBinary, nullable=False),
    _belongs_to("adaptations"),
)

# Apart from the states: predictions, which are many, need none.
STATISTICS = Table(
    "statistics",
    METADATA,
    *_key("digest"),
    Column("checksum", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    _belongs_to("adaptations"),
)

EVENTS = Table(
    "events",
    METADATA,
    *_key("event_id"),
    Column("fingerprint", Text, nullable=False),
    Column("result", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    _belongs_to("adaptations"),
)
