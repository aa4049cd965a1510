import json
from pathlib import Path

from handful_service.app import create_app
from handful_service.settings import Settings


def test_the_committed_openapi_document_is_the_one_that_the_server_gives() -> None:
    committed = json.loads(Path("docs/openapi.json").read_text(encoding="utf-8"))
    assert committed == create_app(Settings()).openapi(), "run `make docs`"
