"""Write the requests of the README: five characters of one drawing each as support, other drawings as inputs."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def requests(drawings: Path) -> dict[str, Any]:
    """The bodies by file name, from `<character>-<drawing>.png` files."""
    names = sorted({path.name.partition("-")[0] for path in drawings.glob("*.png")})

    def drawing(name: str, number: int) -> str:
        return base64.b64encode((drawings / f"{name}-{number}.png").read_bytes()).decode()

    support = [{"input": drawing(name, 1), "label": f"character {name}"} for name in names[:5]]
    click = {"input": drawing(names[5], 1), "label": f"character {names[5]}", "example_id": "click-1"}
    return {
        "predict.json": {"inputs": [drawing(names[0], 2)], "support": support},
        "adaptation.json": {"support": support},
        "predict-alice.json": {"inputs": [drawing(names[0], 2)], "adaptation": "alice"},
        "feedback.json": {"examples": [{**click, "event_id": "event-1"}]},
    }


def main(drawings: Path, folder: Path) -> None:
    """Write the files."""
    for name, body in requests(drawings).items():
        (folder / name).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path("tests/fixtures/glyphs"), Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
