"""The console script `handful`, and the service's own commands.

Commands are entry points that the script loads by name, so no package imports another for them.
"""

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from .auth import append_key
from .errors import KeysInvalid
from .settings import Settings

GROUP = "handful.commands"
_EXTRA_OF = {"handful_models": "train", "handful_export": "train", "handful_service": "cpu"}


def main() -> int:
    """Run the command that the first argument names."""
    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if len(sys.argv) < 2 or sys.argv[1] not in points:
        asked_for_help = sys.argv[1:2] in (["-h"], ["--help"])
        print(f"usage: handful {{{','.join(sorted(points))}}} ...", file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    point = points[sys.argv[1]]
    try:
        command: Callable[[Sequence[str]], int] = point.load()
        return command(sys.argv[2:])
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get(point.module.partition(".")[0], "train")
        print(f"handful {point.name}: {error.name} is not installed: pip install 'handful[{extra}]'", file=sys.stderr)
        return 2


def serve(argv: Sequence[str]) -> int:
    """Serve every model of a model repository."""
    parser = argparse.ArgumentParser("handful serve", description=serve.__doc__)
    for name, field in Settings.model_fields.items():
        _add_setting(parser, name, field)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for item in error.errors():
            place = ".".join(map(str, item["loc"])) or "settings"
            print(f"handful serve: {place}: {item['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 2
    from .workers.planning import this_machine, worker_count  # noqa: PLC0415 (as below)

    machine = this_machine(settings)
    count = worker_count(settings, machine)
    if count > 1:
        from .workers.supervisor import run as supervise  # noqa: PLC0415 (a supervisor needs no app)

        return supervise(settings, count, machine.cores)
    from .server import run  # noqa: PLC0415 (a second of import that --help and bad flags do without)

    return run(settings)


def _add_setting(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    text = f"{field.description} (HANDFUL_{name.upper()}; default: {field.default})".replace("%", "%%")
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
    else:
        parser.add_argument(flag, dest=name, metavar="VALUE", help=text)


def key(argv: Sequence[str]) -> int:
    """Make an API key: its hash is appended to a file, the key itself is printed, once."""
    parser = argparse.ArgumentParser("handful key", description=key.__doc__)
    parser.add_argument("file", type=Path, help="the file that the setting `keys` names; made where it is missing")
    parser.add_argument("--tenant", default="default", help="who owns what the key makes (default: default)")
    parser.add_argument("--scopes", default="predict,adapt", help="predict,adapt,admin (default: predict,adapt)")
    parser.add_argument("--id", default=None, help="the key's name in the file (default: a random one)")
    arguments = parser.parse_args(argv)
    try:
        print(append_key(arguments.file, arguments.id, arguments.tenant, arguments.scopes))
    except (KeysInvalid, OSError) as error:
        print(f"handful key: {error}", file=sys.stderr)
        return 1
    return 0


def check(argv: Sequence[str]) -> int:
    """Check a bundle: digests, graphs, golden vectors, golden requests. The exit code is 1 where it fails."""
    parser = argparse.ArgumentParser("handful check", description=check.__doc__)
    parser.add_argument("bundle", type=Path, help="the folder of one version: <root>/<model>/<version>")
    parser.add_argument("--seconds", type=float, default=60, help="time that the check may take (default: 60)")
    parser.add_argument("--memory-mb", type=int, default=4096, help="memory that it may use (default: 4096)")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    arguments = parser.parse_args(argv)
    result = _checked(arguments.bundle, arguments.seconds, arguments.memory_mb)
    if arguments.json:
        print(json.dumps(result, indent=1))
    elif result["ok"]:
        print(f"ok: {result['name']} version {result['version']}, {result['bytes']} bytes, digest {result['digest']}")
    else:
        print(f"refused: {arguments.bundle}: {result['problem']['detail']}", file=sys.stderr)
    return 0 if result["ok"] else 1


def inspect(argv: Sequence[str]) -> int:
    """Tell what a bundle takes, gives and allows, and what it would run with."""
    parser = argparse.ArgumentParser("handful inspect", description=inspect.__doc__)
    parser.add_argument("bundle", type=Path, help="the folder of one version: <root>/<model>/<version>")
    arguments = parser.parse_args(argv)
    result = _checked(arguments.bundle, 60, 4096)
    print(json.dumps(result, indent=1))
    return 0 if result["ok"] else 1


def _checked(bundle: Path, seconds: float, memory_mb: int) -> dict[str, Any]:
    from .checking import check_in_child  # noqa: PLC0415 (see serve)

    return check_in_child(bundle, seconds=seconds, memory_bytes=memory_mb * 2**20)


if __name__ == "__main__":
    sys.exit(main())
