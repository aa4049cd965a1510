"""What a server costs: time to ready, resident memory idle and at work, size of its environment.

Run it with the environment that is to be measured: `.venv-serve/bin/python loadtests/footprint.py`, or give the
console script: `python loadtests/footprint.py .venv-serve/bin/handful`. The exit code is 1 where a bound is missed.
"""

import argparse
import statistics
import sys
import urllib.request
from pathlib import Path

from process import Running, report, server

STARTS = 5
REQUESTS = 300
MAX_READY_S = 2.0
MAX_RESIDENT_MB = 300
MAX_ENVIRONMENT_MB = 350
REQUEST = Path("examples/glyphs/predict.json")


def main(script: str | None, page: str | None) -> int:
    """Measure and print."""
    ready = []
    for _ in range(STARTS):
        with server(script, workers=1) as running:
            ready.append(running.ready_s)
            idle = running.resident_mb()
            busy = _after_requests(running)
    figures = {
        "ready_s": round(statistics.median(ready), 2),
        "resident_idle_mb": round(idle),
        "resident_after_requests_mb": round(busy),
    }
    bounds = {"ready_s": MAX_READY_S, "resident_after_requests_mb": MAX_RESIDENT_MB}
    if script is not None:
        figures["environment_mb"] = round(_size_mb(Path(script).parent.parent))
        bounds["environment_mb"] = MAX_ENVIRONMENT_MB
    measured = {"figures": figures, "bounds": bounds, "starts": STARTS, "requests": REQUESTS}
    report("What a server costs", measured, page)
    return 0 if all(figures[name] < bound for name, bound in bounds.items()) else 1


def _after_requests(running: Running) -> float:
    body = REQUEST.read_bytes()
    headers = {"Content-Type": "application/json"}
    for _ in range(REQUESTS):
        request = urllib.request.Request(f"{running.url}/v1/models/glyphs/predict", body, headers)  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310 (loopback)
            answer.read()
    return running.resident_mb()


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if not path.is_symlink()) / 2**20


if __name__ == "__main__":
    default = Path(".venv-serve/bin/handful")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", nargs="?", default=str(default) if default.exists() else None)
    parser.add_argument("--page", help="also write a Markdown page")
    arguments = parser.parse_args()
    sys.exit(main(arguments.script, arguments.page))
