"""Who asks: API keys, hashed in a file, and the caller that each one stands for.

A key is `<id>.<secret>`. The file has a line for each: id, `sha256:` and the hash of the whole key, tenant, scopes. The
secret has 256 random bits, so that a plain hash of it cannot be turned back; a password would need more than that.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import Forbidden, KeysInvalid, NotReady, Unauthenticated
from .task import ID, SCOPES, Caller, Scope

log = logging.getLogger("handful.service")

LOOK_AGAIN_S = 1.0
"""How often the file is looked at: a key that is taken out works for no longer than this."""

_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_TENANT = re.compile(ID)
_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the file.

    Attributes:
        digest: The sha256 of the whole key.
    """

    id: str
    digest: bytes
    caller: Caller


class Guard:
    """Tells who calls. Used from the event loop only.

    Args:
        path: The file with the keys; None: there are none, and everyone is the tenant `default`.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: Mapping[str, Key] | None = None
        self._stamp: object = None
        self._next_look = 0.0

    def load(self) -> None:
        """Read the file for the first time.

        Raises:
            KeysInvalid: it cannot be read, or a line is not valid.
        """
        if self._path is not None:
            self._stamp = _stamp(self._path)
            self._keys = read_keys(self._path)

    def caller(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope | None) -> Caller:
        """The caller of a request, who may do what it asks for.

        Args:
            headers: Of the request, as ASGI gives them.
            scope: What is needed; None: any key will do.

        Raises:
            Unauthenticated: no key, or none that is known.
            Forbidden: the key does not have the scope.
            NotReady: the file was not read yet.
        """
        if self._path is None:
            return Caller()
        if self._keys is None:
            raise NotReady("the API keys are being loaded")
        self._look(self._path)
        found = _find(self._keys, [value for name, value in headers if name == b"authorization"])
        if scope is not None and scope not in found.scopes:
            has = ", ".join(sorted(found.scopes))
            raise Forbidden(f"the key has the scopes {has}", field="Authorization", allowed=f"a key with {scope}")
        return found

    def known(self) -> object:
        """The keys as they are now: another object after they changed. What was found in it holds as long as it."""
        if self._path is not None:
            self._look(self._path)
        return self._keys

    def _look(self, path: Path) -> None:
        """Read the file again if it changed; while it cannot be read the keys stay as they are."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_AGAIN_S
        try:
            stamp = _stamp(path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._keys = read_keys(path)
        except KeysInvalid as error:
            log.error("keys not reloaded", extra={"error": str(error)})
            return
        log.info("keys reloaded", extra={"keys": len(self._keys)})


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError as error:
        raise KeysInvalid(f"{path}: {error.strerror}", field="keys") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _find(keys: Mapping[str, Key], headers: list[bytes]) -> Caller:
    if len(headers) != 1:
        what = "is missing" if not headers else "stands there more than once"
        raise Unauthenticated(what, field="Authorization", allowed="Bearer <key>")
    scheme, _, token = headers[0].partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        raise Unauthenticated("names no bearer", field="Authorization", allowed="Bearer <key>")
    key = keys.get(token.partition(b".")[0].decode("latin-1"))
    # The comparison takes as long for an unknown id as for a known one, and wherever the digests differ.
    if not hmac.compare_digest(hashlib.sha256(token).digest(), key.digest if key else _NOBODY) or key is None:
        raise Unauthenticated("holds no key that is known", field="Authorization", allowed="Bearer <key>")
    return key.caller


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file, by id.

    Raises:
        KeysInvalid: it cannot be read, or a line is not valid.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysInvalid(f"{path} cannot be read: {error}", field="keys") from error
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _parse(line, f"{path}, line {number}")
        if key.id in keys:
            raise KeysInvalid(f"{path}, line {number}: the id {key.id} stands there twice", field="keys")
        keys[key.id] = key
    return keys


def _parse(line: str, place: str) -> Key:
    fields = line.split()
    if len(fields) != 4:
        raise KeysInvalid(f"{place}: has {len(fields)} fields", field="keys", allowed="id, hash, tenant, scopes")
    name, text, tenant, scopes = fields
    found = _HASH.fullmatch(text)
    if not _KEY_ID.fullmatch(name) or found is None or not _TENANT.fullmatch(tenant):
        raise KeysInvalid(f"{place}: id, hash or tenant is not valid", field="keys", allowed="lines of `handful key`")
    return Key(name, bytes.fromhex(found[1]), Caller(tenant, parse_scopes(scopes, place)))


def parse_scopes(text: str, place: str) -> frozenset[Scope]:
    """Scopes that are separated by commas.

    Raises:
        KeysInvalid: one is unknown.
    """
    named = text.split(",")
    found = frozenset(scope for scope in SCOPES if scope in named)
    if len(found) != len(set(named)):
        raise KeysInvalid(f"{place}: unknown scopes in {text!r}", field="keys", allowed=",".join(SCOPES))
    return found


def make_key(name: str, tenant: str, scopes: frozenset[Scope]) -> tuple[str, str]:
    """A new key, and its line for the file.

    Raises:
        KeysInvalid: the id or the tenant is not valid.
    """
    key = f"{name}.{secrets.token_urlsafe(32)}"
    ordered = ",".join(scope for scope in SCOPES if scope in scopes)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()} {tenant} {ordered}"
    _parse(line, "the new key")
    return key, line


def append_key(path: Path, name: str | None, tenant: str, scopes: str) -> str:
    """A new key, whose line is appended to a file; a new file can be read by its owner only.

    Args:
        path: The file.
        name: The key's id; None: a random one.
        tenant: Who owns what the key makes.
        scopes: Separated by commas.

    Raises:
        KeysInvalid: the file, the id, the tenant or a scope is not valid, or the id is there already.
    """
    keys = read_keys(path) if path.exists() else {}
    name = name or secrets.token_hex(6)
    if name in keys:
        raise KeysInvalid(f"{path} has the id {name} already", field="keys")
    key, line = make_key(name, tenant, parse_scopes(scopes, "scopes"))
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    path.touch(0o600)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{'' if whole else chr(10)}{line}\n")
    return key
