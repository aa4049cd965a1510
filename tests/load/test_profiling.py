"""The profile of a call: every form of the server that it compares still answers."""

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.serving import ROOT
from tests.tiny import Tiny, build


@pytest.fixture
def profiling(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, which is run as one and imports its neighbours as such."""
    monkeypatch.syspath_prepend(str(ROOT / "loadtests"))
    return importlib.import_module("profiling")


def test_every_form_of_the_server_is_ready_and_answers(profiling: Any, tmp_path: Path) -> None:
    build(tmp_path, Tiny())

    async def status(form: Any) -> int:
        async with profiling.fed(form, tmp_path) as feed:
            support = [{"input": [1, 0, 0, 0], "label": "a"}, {"input": [0, 1, 0, 0], "label": "b"}]
            body = json.dumps({"inputs": [[1, 0, 0, 0]], "support": support}).encode()
            found, content = await feed.call("POST", "/v1/models/tiny/predict", body)
            assert json.loads(content)["predictions"][0]["label"] == "a"
            return int(found)

    assert [asyncio.run(status(form)) for form in profiling.FORMS] == [200] * len(profiling.FORMS)
