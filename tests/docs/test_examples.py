import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.serving import Api
from tests.tasks import alike, labels, scores

EXAMPLES = Path("examples/glyphs")


def test_the_committed_requests_are_what_their_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / "make_request.py"), str(tmp_path)], check=True)
    written = {path.name: json.loads(path.read_bytes()) for path in tmp_path.iterdir()}
    assert written == {path.name: json.loads(path.read_bytes()) for path in EXAMPLES.glob("*.json")}


def test_the_lines_of_the_readme_answer_as_it_says(api: Api) -> None:
    def body(name: str) -> Any:
        return json.loads((EXAMPLES / name).read_bytes())

    path = "/v1/models/glyphs/adaptations/alice"
    inline = api.post("/v1/models/glyphs/predict", json=body("predict.json"))
    assert labels(inline) == ["character 0983"]
    assert api.put(path, json=body("adaptation.json")).status_code == 201
    stored = api.post("/v1/models/glyphs/predict", json=body("predict-alice.json"))
    assert alike(scores(stored), scores(inline))
    assert api.post(f"{path}/examples", json=body("feedback.json")).status_code == 200
    assert len(api.get(path).json()["labels"]) == 6
    assert api.delete(f"{path}/examples/click-1").status_code == 200
    again = api.post("/v1/models/glyphs/predict", json=body("predict-alice.json"))
    assert alike(scores(again), scores(inline))


def test_the_readme_shows_the_tables_that_the_commands_wrote() -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    results = Path("docs/results/glyphs.md").read_text(encoding="utf-8")
    rows = [line for line in results.splitlines() if line.startswith("| ") and "way" in line]
    assert rows
    for row in rows:
        title, accuracy, interval = (cell.strip() for cell in row.split("|")[1:4])
        assert f"| {title} | {accuracy} ± {interval} |" in readme
