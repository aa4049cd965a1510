"""The card of a bundle: what it was trained on, licences, evaluation."""

import json
from typing import Any

from handful_models.report import initialisation, method, notes
from handful_models.runs import Run

from .spec import ExportSpec


def card(spec: ExportSpec, run: Run) -> str:
    """The card in Markdown, from the config and the run's own evaluation."""
    config = run.read_config()
    evaluation = json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.exists() else None
    lines = [
        f"# {spec.name}, version {spec.version}",
        "",
        spec.description,
        "",
        f"- Trained on: {spec.card.data}",
        f"- Method: {method(run)}; encoder: {initialisation(config)}; {config.optimizer.steps} steps, "
        f"seed {config.seed}.",
        f"- For: {spec.card.use}",
        f"- Licence: {spec.card.licence}",
        "",
        *(_table(evaluation) if evaluation else ["Not evaluated."]),
        *(notes(evaluation["learner"]) if evaluation else []),
        "",
    ]
    return "\n".join(lines)


def _table(evaluation: dict[str, Any]) -> list[str]:
    rows = [
        f"| {row['title']} | {100 * row['mean']:.2f} ± {100 * row['interval']:.2f} | {row['episodes']} |"
        for row in evaluation["rows"]
    ]
    return [
        f"Accuracy on {evaluation['description']}, inductive, 95 % confidence intervals, "
        f"episode seed {evaluation['seed']}:",
        "",
        "| protocol | accuracy, % | episodes |",
        "| --- | --- | --- |",
        *rows,
    ]
