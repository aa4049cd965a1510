"""The few fixtures that tests of the server share."""

import json
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

from handful_models import omniglot

from .postgres import Postgres, running
from .serving import BUNDLES, Api, in_process
from .tasks import Glyphs

# Machines are shared: how long an example takes says nothing of the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

_NUMBERS = count(1)


@pytest.fixture(autouse=True, scope="session")
def _synthetic_drawings_may_be_read() -> Iterator[None]:
    """No test but that of the published digests holds the drawings to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "DIGESTS", {})
        yield


@pytest.fixture(scope="session")
def glyphs() -> Glyphs:
    return Glyphs.read()


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The app with the shipped bundles. Tests share it, so each names its own adaptations."""
    with in_process(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def name() -> str:
    """The id of an adaptation that no other test uses."""
    return f"task-{next(_NUMBERS)}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository whose `glyphs` has version 1 (`stable`) and version 2, which differ in their number alone."""
    root = tmp_path_factory.mktemp("bundles")
    for version in ("1", "2"):
        folder = root / "glyphs" / version
        shutil.copytree(BUNDLES / "glyphs" / "1", folder)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"version": int(version)}), encoding="utf-8")
    (root / "glyphs" / "labels.json").write_text('{"stable": 1}', encoding="utf-8")
    return root
