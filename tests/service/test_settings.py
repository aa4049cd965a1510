"""Settings from flags and the environment."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from handful_service import cli
from handful_service.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HANDFUL_{name.upper()}", raising=False)


def test_the_defaults_are_private_and_bounded() -> None:
    settings = Settings()
    assert (settings.host, settings.allow_anonymous) == ("127.0.0.1", False)
    assert settings.max_in_flight > 0
    assert settings.max_queued_rows > 0


def test_the_environment_sets_and_a_flag_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_PORT", "9001")
    monkeypatch.setenv("HANDFUL_BUNDLES", "/models")
    assert (Settings().port, Settings().bundles) == (9001, Path("/models"))
    assert Settings(port=9002).port == 9002


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "example.org"])  # noqa: S104 (refused)
def test_a_public_host_needs_allow_anonymous(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="HANDFUL_ALLOW_ANONYMOUS=1"):
        Settings(host=host)
    monkeypatch.setenv("HANDFUL_ALLOW_ANONYMOUS", "1")
    assert Settings(host=host).host == host


def test_a_public_host_may_have_keys_instead() -> None:
    assert Settings(host="192.168.1.7", keys=Path("keys")).keys == Path("keys")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_private_host_does_not(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 65536), ("port", -1), ("max_queued_rows", 0), ("deadline_ms", 0), ("threads", -1), ("provider", "tpu")],
)
def test_a_value_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_settings_cannot_change_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="no_such"):
        Settings.model_validate({"no_such": 1})


def test_every_setting_has_a_description_and_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.serve(["--help"])
    page = capsys.readouterr().out
    assert ended.value.code == 0
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"--{name.replace('_', '-')}" in page
        assert f"HANDFUL_{name.upper()};" in "".join(page.split())


@pytest.mark.parametrize(
    ("flags", "message"), [(["--port", "x"], "port: "), (["--host", "example.org"], "HANDFUL_ALLOW_ANONYMOUS=1")]
)
def test_bad_flags_end_with_2_and_a_line_that_says_what_to_change(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.serve(flags) == 2
    assert message in capsys.readouterr().err


def test_the_settings_are_json() -> None:
    assert json.loads(Settings().model_dump_json())["port"] == 8000
