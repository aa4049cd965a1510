"""Every test of the HTTP API runs against all forms of the app: they must not differ."""

from collections.abc import Iterator

import pytest
from tests.serving import Api, Form, in_process


@pytest.fixture(scope="session", params=["wire", "hot", "routed"], autouse=True)
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Who answers predict calls. Fixtures that make an app ask for it, so that they are made for each form."""
    Form.name = request.param
    yield request.param
    Form.name = "hot"


@pytest.fixture(scope="session")
def api(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The app with the shipped bundles. Tests share it, so each names its own adaptations."""
    with in_process(tmp_path_factory.mktemp(f"api-{form}")) as running:
        yield running
