import json
import subprocess
import sys
from pathlib import Path

REQUEST = Path("examples/glyphs/predict.json")


def test_the_committed_request_is_what_its_script_prints() -> None:
    command = [sys.executable, "examples/glyphs/make_request.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == json.loads(REQUEST.read_text(encoding="utf-8"))


def test_the_readme_shows_the_tables_that_the_commands_wrote() -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    results = Path("docs/results/glyphs.md").read_text(encoding="utf-8")
    rows = [line for line in results.splitlines() if line.startswith("| ") and "way" in line]
    assert rows
    for row in rows:
        title, accuracy, interval = (cell.strip() for cell in row.split("|")[1:4])
        assert f"| {title} | {accuracy} ± {interval} |" in readme
