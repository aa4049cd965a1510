"""What mixing users costs: the throughput of 64 users' adaptations against that of one user's, in one run.

Closed loop: each connection sends its next request when it has the answer. The two workloads take turns, so that a
machine that slows down slows both; the ratio is the figure, the absolute numbers are of this machine alone.
"""

import argparse
import asyncio
import base64
import statistics
import time
from pathlib import Path

import httpx
from process import report, server

USERS = 64
CONNECTIONS = 16
SECONDS = 3.0
ROUNDS = 4
DRAWINGS = Path("tests/fixtures/glyphs")


async def main(page: str | None) -> None:
    """Measure and print."""
    with server() as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
            await _create_users(client)
            rounds = [(await _throughput(client, 1), await _throughput(client, USERS)) for _ in range(ROUNDS)]
    one, many = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(mixed / alone for alone, mixed in rounds)
    figures = {
        "baseline": "one user, 16 connections, one drawing a request",
        "one_user_requests_per_s": round(one),
        "64_users_requests_per_s": round(many),
        "ratio": round(ratio, 3),
        "rounds": ROUNDS,
    }
    report("What mixing users costs", figures, page)


def _drawing(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


async def _create_users(client: httpx.AsyncClient) -> None:
    """Each user calls the same five characters by names of his own."""
    firsts = sorted(DRAWINGS.glob("*-1.png"))[:5]
    for user in range(USERS):
        support = [
            {"input": _drawing(path), "label": f"{(place + user) % 5} of {user}"} for place, path in enumerate(firsts)
        ]
        answer = await client.put(f"/v1/models/glyphs/adaptations/user-{user}", json={"support": support})
        answer.raise_for_status()


async def _throughput(client: httpx.AsyncClient, users: int) -> float:
    query = _drawing(sorted(DRAWINGS.glob("*-2.png"))[0])
    done = 0
    until = time.monotonic() + SECONDS

    async def connection(number: int) -> None:
        nonlocal done
        turn = number
        while time.monotonic() < until:
            body = {"inputs": [query], "adaptation": f"user-{turn % users}"}
            answer = await client.post("/v1/models/glyphs/predict", json=body)
            answer.raise_for_status()
            turn += CONNECTIONS + 1
            done += 1

    await asyncio.gather(*(connection(number) for number in range(CONNECTIONS)))
    return done / SECONDS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", help="also write a Markdown page")
    asyncio.run(main(parser.parse_args().page))
