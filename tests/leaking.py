"""`python -m tests.leaking LEAK PART SHARE`: the memory test on a service that leaks in a known way, or in none."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtests.memory import MOST_GROWTH, measure

from handful_service.engine.graphs import Graphs
from handful_service.engine.slots import SlotTables
from tests.serving import BUNDLES

kept: list[Any] = []


def keep_batches() -> None:
    """Every batch's arrays stay alive."""
    run = Graphs.run

    def kept_run(self: Graphs, graph: Any, feed: Any, rows: int) -> Any:
        kept.append(feed)
        return run(self, graph, feed, rows)

    Graphs.run = kept_run  # type: ignore[method-assign]


def keep_states() -> None:
    """Every state that was ever in a slot stays alive."""
    write = SlotTables.write

    def kept_write(self: SlotTables, slot: int, state: Any) -> None:
        kept.append(state)
        write(self, slot, state)

    SlotTables.write = kept_write  # type: ignore[method-assign]


LEAKS: dict[str, Callable[[], None]] = {"none": lambda: None, "batches": keep_batches, "states": keep_states}


def main(leak: str, part: str, share: str) -> int:
    """1 where memory grew."""
    LEAKS[leak]()
    found = measure(part, float(share), Path(BUNDLES))
    print(found)
    return 1 if found["growth_after_the_first"] > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
