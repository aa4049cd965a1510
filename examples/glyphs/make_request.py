"""Print a predict request: one drawing of each of five characters as support, another of the first as input."""

import base64
import json
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Read `<character>-<drawing>.png` files and print the request."""
    characters = sorted({path.name.partition("-")[0] for path in folder.glob("*.png")})[:5]
    drawn = {name: base64.b64encode((folder / f"{name}-1.png").read_bytes()).decode() for name in characters}
    query = base64.b64encode((folder / f"{characters[0]}-2.png").read_bytes()).decode()
    support = [{"input": drawing, "label": f"character {name}"} for name, drawing in drawn.items()]
    print(json.dumps({"inputs": [query], "support": support}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/glyphs"))
