"""API keys: the file, the command that writes it, and who is let through."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful_service import auth, cli
from handful_service.auth import Guard, append_key, read_keys
from handful_service.errors import Forbidden, KeysInvalid, NotReady, Unauthenticated
from handful_service.task import Caller

HASH = "sha256:" + hashlib.sha256(b"x").hexdigest()


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"handful"), (b"authorization", b"Bearer " + key.encode())]


def loaded(path: Path) -> Guard:
    guard = Guard(path)
    guard.load()
    return guard


def test_a_key_stands_for_its_tenant_and_scopes(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ann, bob = append_key(path, "ann-1", "ann", "predict"), append_key(path, None, "bob", "predict,adapt,admin")
    guard = loaded(path)
    assert guard.caller(bearer(ann), "predict") == Caller("ann", frozenset({"predict"}))
    assert guard.caller(bearer(bob), None).tenant == "bob"
    for scope in ("adapt", "admin"):
        assert guard.caller(bearer(bob), scope).tenant == "bob"
        with pytest.raises(Forbidden, match="has the scopes predict"):
            guard.caller(bearer(ann), scope)


def test_the_file_holds_no_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = append_key(path, "ann-1", "ann", "predict")
    name, _, secret = key.partition(".")
    assert name == "ann-1"
    assert len(secret) >= 43
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert append_key(tmp_path / "other", "ann-1", "ann", "predict") != key


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic YTpi")],
        bearer("ann-1"),
        bearer("ann-1."),
        bearer("nobody.x"),
        bearer("\xff.x"),
        [*bearer("ann-1.x"), *bearer("ann-1.x")],
    ],
)
def test_whoever_has_no_key_is_no_one(tmp_path: Path, headers: list[tuple[bytes, bytes]]) -> None:
    append_key(tmp_path / "keys", "ann-1", "ann", "predict")
    with pytest.raises(Unauthenticated):
        loaded(tmp_path / "keys").caller(headers, None)


@given(st.integers(0, 200), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_key_that_differs_in_one_character_is_none(tmp_path_factory: Any, at: int, other: str) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys"
    key = append_key(path, "ann-1", "ann", "predict")
    changed = key[: at % len(key)] + other + key[at % len(key) + 1 :]
    guard = loaded(path)
    if changed == key:
        assert guard.caller(bearer(changed), None).tenant == "ann"
    else:
        with pytest.raises(Unauthenticated):
            guard.caller(bearer(changed), None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ann", "has 1 fields"),
        (f"ann {HASH} ann predict more", "has 5 fields"),
        (f"-ann {HASH} ann predict", "is not valid"),
        (f"a.b {HASH} ann predict", "is not valid"),
        ("ann sha256:12 ann predict", "is not valid"),
        ("ann plain ann predict", "is not valid"),
        (f"ann {HASH} a/b predict", "is not valid"),
        (f"ann {HASH} ann predict,write", "unknown scopes"),
        (f"ann {HASH} ann predict,", "unknown scopes"),
        (f"ok {HASH} ann predict", "stands there twice"),
    ],
)
def test_a_line_that_is_not_valid_is_told_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "keys").write_text(f"# ours\n\nok {HASH} ann predict\n{line}\n")
    with pytest.raises(KeysInvalid, match=f"line 4: .*{message}"):
        read_keys(tmp_path / "keys")


def test_a_file_that_is_missing_or_no_text_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary"):
        with pytest.raises(KeysInvalid, match=name):
            loaded(tmp_path / name)


def test_before_the_file_is_read_no_one_is_let_through_and_without_a_file_everyone() -> None:
    with pytest.raises(NotReady):
        Guard(Path("keys")).caller([], None)
    assert Guard(None).caller([], "admin") == Caller()


def test_a_changed_file_holds_without_a_restart_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auth, "LOOK_AGAIN_S", 0.0)
    path = tmp_path / "keys"
    first = append_key(path, "one", "ann", "predict")
    guard = loaded(path)
    second = append_key(path, "two", "ann", "predict")
    assert guard.caller(bearer(second), None).tenant == "ann"
    whole = path.read_text()
    path.write_text(whole + "half a li")
    assert guard.caller(bearer(first), None).tenant == guard.caller(bearer(second), None).tenant == "ann"
    assert "keys not reloaded" in caplog.messages
    path.unlink()
    assert guard.caller(bearer(second), None).tenant == "ann"
    path.write_text(whole.splitlines()[1] + "\n")
    with pytest.raises(Unauthenticated):
        guard.caller(bearer(first), None)
    assert guard.caller(bearer(second), None).tenant == "ann"


def test_the_file_is_looked_at_once_in_a_while_only(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = append_key(path, "one", "ann", "predict")
    guard = loaded(path)
    guard.caller(bearer(key), None)
    path.unlink()
    os.mkdir(path)
    assert guard.caller(bearer(key), None).tenant == "ann"


def test_the_command_prints_the_key_and_refuses_an_id_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    path.write_text("# no line break at the end")
    arguments = [str(path), "--tenant", "ann", "--scopes", "admin,predict", "--id", "ann-1"]
    assert cli.key(arguments) == 0
    printed = capsys.readouterr().out.strip()
    assert loaded(path).caller(bearer(printed), "admin").scopes == {"predict", "admin"}
    before = path.read_text()
    for wrong in (arguments, [str(path), "--scopes", "root"], [str(path), "--tenant", "a b"], [str(path), "--id", "-"]):
        assert cli.key(wrong) == 1
    assert path.read_text() == before
    assert "has the id ann-1 already" in capsys.readouterr().err
