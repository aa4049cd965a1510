"""The documents against the code. What is checked stands in tables and headings, so that each page is read as it is."""

import importlib.metadata
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from handful_service.app import create_app
from handful_service.bundle.manifest import Manifest, parse_manifest
from handful_service.metrics import Metrics
from handful_service.problems import INTERNAL, METHOD_NOT_ALLOWED, PROBLEMS
from handful_service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

NOT_OURS = ("node_modules", "site-packages", "runs", "dist", "build")
"""Folders whose pages are not the project's; neither are those that begin with a dot."""

UNWANTED = {
    "a path of the machine that wrote it": r"(?<![\w.])/(?:work|tmp/\w|home|root|Users)/",
    "a folder beside the repository": r"\.\./shared\b|(?<![\w/])shared/(?:design|style|data)",
    "the number of an issue": r"(?<![\w&/])#\d+\b|\bissue \d+",
    "what is still to be done": r"\b(?:TODO|FIXME|XXX|TBD)\b",
    "a place to be filled in": r"@[A-Z]{3,}@|\blorem ipsum\b",
    "who or what wrote it": r"(?i)\b(?:claude|anthropic|openai|chatgpt|copilot|subagent|language model)\b",
}


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    found = []
    for path in sorted(ROOT.rglob("*.md")):
        folders = path.relative_to(ROOT).parts[:-1]
        if not any(folder.startswith(".") or folder in NOT_OURS for folder in folders):
            found.append(path)
    return found


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    """The headings of a page, without their marks; code blocks are no headings."""
    return re.findall(r"^#{1,6} +(.+?)\s*$", without_code_blocks(page), re.MULTILINE)


def without_code_blocks(page: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", page, flags=re.MULTILINE | re.DOTALL)


def table_rows(page: str) -> Iterator[list[str]]:
    """The cells of every line of every table."""
    for line in without_code_blocks(page).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def first_cells(page: str) -> set[str]:
    """What stands as code in the first column of the tables."""
    return {cells[0].strip("`") for cells in table_rows(page) if re.fullmatch(r"`[^`]+`", cells[0])}


def test_every_setting_has_a_heading_and_every_heading_of_code_is_a_setting() -> None:
    found = {heading.strip("`") for heading in headings(text("settings.md")) if heading.startswith("`")}
    assert found == set(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_told_with_its_variable_its_flag_and_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    line = f"`HANDFUL_{name.upper()}` · `--{name.replace('_', '-')}` · default `{shown}`"
    section = re.search(rf"^### `{name}`$(.*?)(?=^#|\Z)", text("settings.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    assert line in section[1].splitlines()


def test_the_table_of_errors_is_the_table_of_the_code() -> None:
    told = {
        (int(cells[0]), cells[1].strip("`"), cells[2]) for cells in table_rows(text("errors.md")) if len(cells) == 6
        and cells[0].isdigit()
    }  # fmt: skip
    problems = [*PROBLEMS.values(), METHOD_NOT_ALLOWED, INTERNAL]
    assert told == {(problem.status, problem.slug, problem.title) for problem in problems}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_class_of_an_error_stands_beside_its_slug(kind: type[Exception]) -> None:
    row = next(cells for cells in table_rows(text("errors.md")) if f"`{PROBLEMS[kind].slug}`" in cells[1:2])
    assert f"`{kind.__name__}`" in row[3]


def test_pages_name_no_slug_that_does_not_exist() -> None:
    slugs = {problem.slug for problem in (*PROBLEMS.values(), METHOD_NOT_ALLOWED, INTERNAL)}
    for page in pages():
        named = set(re.findall(r"urn:handful:problem:([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= slugs, page


def test_the_endpoints_of_the_page_are_those_of_the_server() -> None:
    told = {heading.strip("`") for heading in headings(text("http-api.md")) if heading.startswith("`")}
    paths = create_app(Settings()).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, item in paths.items() for method in item if method in METHODS}
    assert told == served


def test_every_command_has_a_heading_and_every_heading_of_a_command_is_one() -> None:
    told = {
        match[1]
        for page in pages()
        for heading in headings(page.read_text(encoding="utf-8"))
        if (match := re.fullmatch(r"`handful (\S+)`", heading))
    }
    assert told == {point.name for point in importlib.metadata.entry_points(group="handful.commands")}


def test_the_keys_of_the_manifest_are_those_of_the_page() -> None:
    keys = set(manifest_keys(Manifest))
    told = {
        cells[0].strip("`")
        for cells in table_rows(text("bundle-format.md"))
        if len(cells) == 4 and re.fullmatch(r"`[a-z][a-z_.<>]*`", cells[0])
    }
    assert told == keys


def manifest_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The keys of a model and of those within it, as paths; `<name>` stands for the keys of an object of parts."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        for inner, is_mapping in parts_of(field.annotation):
            yield from manifest_keys(inner, f"{prefix}{name}.{'<name>.' if is_mapping else ''}")


def parts_of(annotation: object) -> list[tuple[type[BaseModel], bool]]:
    """The models within an annotation, and whether each is the value of a mapping."""
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, False)]
    if origin is dict:
        return [(part, True) for part, _ in parts_of(typing.get_args(annotation)[1])]
    if origin in (typing.Union, types.UnionType):
        return [part for choice in typing.get_args(annotation) for part in parts_of(choice)]
    return []


def test_the_smallest_manifest_of_the_page_is_valid() -> None:
    (example,) = (block for block in json_blocks(text("bundle-format.md")) if '"format"' in block)
    assert parse_manifest(example.encode()).name == "points"


def test_every_metric_stands_in_the_table_and_no_other() -> None:
    collected = Metrics().registry.collect()
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in collected}
    assert {name for name in first_cells(text("operations.md")) if re.fullmatch(r"handful_\w+", name)} == names


def json_blocks(page: str) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_json_on_a_page_is_json(page: Path) -> None:
    for block in json_blocks(page.read_text(encoding="utf-8")):
        json.loads(block)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert there.is_relative_to(ROOT), f"{page.name} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as web views of repositories make them."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(page.read_text(encoding="utf-8")))
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_speaks_of_the_project_only(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    for what, pattern in UNWANTED.items():
        found = re.search(pattern, content)
        assert found is None, f"{what}: {found[0]!r}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 40


def test_decisions_are_numbered_without_gaps_and_have_the_same_parts() -> None:
    decisions = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for number, path in enumerate(decisions, start=1):
        title, *parts = headings(path.read_text(encoding="utf-8"))
        assert title.startswith(f"{number}. ")
        assert parts == ["Context", "Decision", "Consequences"]
