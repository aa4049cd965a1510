"""Everything that can be set, read once from the environment (`HANDFUL_<NAME>`) or from flags (`--name`)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.0.0.1", "::1", "localhost")


_OTHERS = frozenset({"HANDFUL_DATA", "HANDFUL_REQUIRE_DATA"})
"""Variables of training and of the tests."""


class Settings(BaseSettings):
    """The settings of a server. Values are passed down; no other module reads the environment."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="HANDFUL_", extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on. A public one needs `keys` or `allow_anonymous`.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    keys: Path | None = Field(
        None, description="File of API keys, as `handful key` writes it. With it, calls need one."
    )
    allow_anonymous: bool = Field(
        False, description="Whether anyone who reaches a public address may call, where there are no keys."
    )
    bundles: Path = Field(Path("bundles"), description="Model repository: `<model>/<version>/` folders.")
    store: str = Field(
        "sqlite:///handful.db", description="Where adaptations are kept: a `sqlite:///` or `postgresql://` URL."
    )
    retention: Literal["inputs", "features"] = Field(
        "inputs",
        description="What is kept of an example. `features` keeps no raw input, and binds an adaptation to the "
        "bundle version that it was made with.",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where graphs run. `auto` takes CUDA where it is there, else the CPU."
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Processes that serve, each with an engine of its own. 0 means one per available core, as far as "
        "the memory goes, and one with CUDA.",
    )
    threads: int = Field(
        0, ge=0, le=256, description="Threads of graph runs, of all workers together; 0 means one per available core."
    )
    inline_ms: float = Field(
        5.0,
        ge=0,
        le=1000,
        description="Predicted milliseconds up to which a graph run takes place on the event loop; 0 means never.",
    )
    cache_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="Bytes for the task states of all bundles and workers; touched only as they fill.",
    )
    support_cache_bytes: int = Field(
        32 * 2**20,
        ge=0,
        description="Bytes for what the latest support sets of predict calls came to, so that a call with the same one "
        "does not learn again; in memory alone; 0 keeps none.",
    )
    max_batch_rows: int = Field(256, ge=1, le=65536, description="Rows of one graph run.")
    max_queued_rows: int = Field(4096, ge=1, description="Rows that may wait per graph before calls are refused.")
    max_queued_ms: float = Field(
        500.0,
        gt=0,
        description="Predicted milliseconds of graph runs that may wait in a burst before calls are refused; a tenth "
        "of it where the queue does not empty.",
    )
    max_rows_per_call: int = Field(1024, ge=1, description="Inputs or rows of one predict call.")
    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="Bytes of a request body.")
    max_in_flight: int = Field(
        512, ge=1, description="Calls at work at a time, in all workers, before further ones are refused."
    )
    deadline_ms: int = Field(
        30_000,
        ge=1,
        le=3_600_000,
        description="Time for a call that names no `X-Deadline-Ms` of its own, and its most.",
    )
    drain_ms: int = Field(
        500, ge=0, le=600_000, description="Time between readiness turning 503 and no new connections, on SIGTERM."
    )
    shutdown_ms: int = Field(30_000, ge=0, description="Time for accepted calls to be answered after that.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level logged.")

    @model_validator(mode="after")
    def _public_only_on_purpose(self) -> "Settings":
        if self.host not in LOOPBACK and self.keys is None and not self.allow_anonymous:
            raise ValueError(
                f"host {self.host} can be reached from outside and there are no API keys: name a file of them "
                "(HANDFUL_KEYS), or set HANDFUL_ALLOW_ANONYMOUS=1 if anyone who reaches it may call"
            )
        return self


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """The names of an environment that look like settings and are none: most are misspelt."""
    known = {f"HANDFUL_{name.upper()}" for name in Settings.model_fields} | _OTHERS
    return sorted(name for name in environment if name.startswith("HANDFUL_") and name not in known)
