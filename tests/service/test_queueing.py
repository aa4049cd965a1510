"""The queue that is fair between tenants."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handful_service.engine.queueing import REMEMBERED, FairQueue, Waiting

Queue = FairQueue[str, None]


class Slot:
    """What stands for a future: done where its caller is gone."""

    def __init__(self) -> None:
        self.gone = False

    def done(self) -> bool:
        return self.gone


def entry(name: str, rows: int = 1, deadline_s: float = 0.0) -> Waiting[str, None]:
    slot: Any = Slot()
    return Waiting(name, rows, slot, deadline_s)


def names(batch: list[Waiting[str, None]]) -> list[str]:
    return [item.item for item in batch]


def test_one_call_beside_a_tenant_with_ten_thousand_is_in_the_next_batch() -> None:
    queue: Queue = FairQueue()
    for number in range(10_000):
        queue.push("many", entry(f"many {number}"))
    for _ in range(3):
        assert len(queue.take(64)) == 64
    queue.push("one", entry("the one"))
    assert names(queue.take(64))[:2].count("the one") == 1
    assert queue.rows == 10_000 - 4 * 64 + 1


def test_tenants_get_the_same_rows_whatever_the_size_of_their_items() -> None:
    queue: Queue = FairQueue()
    for number in range(400):
        queue.push("small", entry(f"small {number}"))
        queue.push("large", entry(f"large {number}", 8))
    taken = [item for _ in range(20) for item in queue.take(16)]
    small = sum(item.rows for item in taken if item.item.startswith("small"))
    assert abs(small - sum(item.rows for item in taken) / 2) <= 8


def test_a_tenant_that_goes_and_comes_back_gets_no_more_than_its_share() -> None:
    queue: Queue = FairQueue()
    for number in range(1000):
        queue.push("steady", entry(f"steady {number}"))
    served = {"steady": 0, "coming": 0}
    queue.push("coming", entry("coming", 16))
    for _ in range(300):
        for item in queue.take(1):
            served[item.item.split()[0]] += item.rows
            if item.item == "coming":
                queue.push("coming", entry("coming", 16))
    assert served["coming"] <= served["steady"] + 16


def test_the_earliest_deadline_of_a_tenant_comes_first_and_what_is_due_alike_in_order() -> None:
    queue: Queue = FairQueue()
    for name, deadline_s in (("a", 5), ("b", 7), ("c", 6), ("d", 5), ("e", 1), ("f", 7)):
        queue.push("", entry(name, 1, deadline_s))
    assert names(queue.take(10)) == ["e", "a", "d", "c", "b", "f"]


def test_clocks_of_tenants_that_went_are_forgotten() -> None:
    queue: Queue = FairQueue()
    queue.push("stays", entry("large", 10**6))
    queue.push("stays", entry("large", 10**6))
    for number in range(5 * REMEMBERED):
        queue.push(f"tenant {number}", entry("x"))
        queue.take(1)
    assert len(queue._clocks) <= REMEMBERED + 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 3)),
        st.tuples(st.just("take"), st.integers(1, 8)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("look")),
    )
)


@given(STEPS)
def test_everything_comes_out_once_unless_its_caller_is_gone_and_the_counts_are_right(steps: list[Any]) -> None:
    queue: Queue = FairQueue()
    came: list[Waiting[str, None]] = []
    out: list[Waiting[str, None]] = []
    for number, (what, *how) in enumerate(steps):
        if what == "push":
            came.append(entry(str(number), how[1], how[2]))
            queue.push(how[0], came[-1])
        elif what == "take":
            batch = queue.take(how[0])
            assert len(batch) == 1 or sum(item.rows for item in batch) <= how[0]
            assert not any(item.reply.done() for item in batch)
            out += batch
        elif what == "cancel" and how[0] < len(came) and came[how[0]] not in out:
            vars(came[how[0]].reply)["gone"] = True
        elif what == "look":
            alive = [item for item in came if item not in out and not item.reply.done()]
            assert (queue.first_rows() > 0) == bool(alive)
        assert queue.rows >= 0
    while queue.calls:
        out += queue.take(3)
    assert sorted(names(out)) == sorted(item.item for item in came if not item.reply.done())
    assert queue.rows == queue.calls == 0
    assert not queue._lanes
    assert not queue._clocks


def test_items_of_one_lane_whose_callers_are_gone_do_not_count_as_served() -> None:
    async def go() -> None:
        queue: Queue = FairQueue()
        gone = [entry(f"gone {number}") for number in range(50)]
        for item in gone:
            queue.push("a", item)
            vars(item.reply)["gone"] = True
        queue.push("a", entry("a stays"))
        queue.push("b", entry("b 1"))
        queue.push("b", entry("b 2"))
        assert set(names(queue.take(2))) == {"a stays", "b 1"}

    asyncio.run(go())
