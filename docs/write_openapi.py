"""Write `docs/openapi.json` from the code; with `--check`, only tell whether it is current."""

import json
import sys
from pathlib import Path

from handful_service.app import create_app
from handful_service.settings import Settings

PAGE = Path(__file__).parent / "openapi.json"


def document() -> str:
    """The OpenAPI document as text."""
    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check."""
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == document() else 1
    PAGE.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
