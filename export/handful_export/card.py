"""The card of a bundle: what it was trained on, licences, evaluation."""

import json
from typing import Any

from handful_models.measuring import UNTOUCHED
from handful_models.report import initialisation, method, notes
from handful_models.runs import Run

from .spec import ExportSpec


def card(spec: ExportSpec, run: Run) -> str:
    """The card in Markdown, from the config and the run's own evaluation."""
    config = run.read_config()
    conditioning = config.learner.options.get("conditioning")
    how = method(run) + (f", {conditioning}" if conditioning else "")
    evaluation = json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.exists() else None
    lines = [
        f"# {spec.name}, version {spec.version}",
        "",
        spec.description,
        "",
        f"- Trained on: {spec.card.data}",
        f"- Method: {how}; encoder: {initialisation(config)}; {config.optimizer.steps} steps, seed {config.seed}.",
        f"- For: {spec.card.use}",
        f"- Licence: {spec.card.licence}",
        "",
        *_evaluated(evaluation),
        "",
    ]
    return "\n".join(lines)


def _evaluated(evaluation: dict[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["Not evaluated."]
    if "tasks" in evaluation:
        return _known(evaluation)
    if "figures" in evaluation:
        return _figures(evaluation)
    return [*_table(evaluation), *notes(evaluation["learner"])]


def _known(evaluation: dict[str, Any]) -> list[str]:
    """Figures of known tasks, and what sharing did to them, if that was measured."""
    sharing = {each["task"]: each for each in evaluation.get("sharing", {}).get("tasks", [])}
    lines = [
        "On rows neither trained on nor used to choose anything, 95 % confidence intervals over rows. «Sharing» is the "
        "gain in % over a model of the task's own, with Holm's correction over the tasks:"
        if sharing
        else "On rows neither trained on nor used to choose anything, 95 % confidence intervals over rows:",
        "",
        "| task | figure | mean | rows |" + (" sharing |" if sharing else ""),
        "| --- | --- | --- | --- |" + (" --- |" if sharing else ""),
    ]
    for row in evaluation["tasks"]:
        line = f"| {row['task']} | {row['metric']} | {row['mean']:.4f} ± {row['interval']:.4f} | {row['rows']} |"
        if found := sharing.get(row["task"]):
            interval = f"{found['low']:+.2f} to {found['high']:+.2f}"
            line += f" {found['verdict']}: {found['delta']:+.2f} % ({interval}) |"
        lines.append(line)
    if sharing:
        arm = evaluation["sharing"]
        lines += ["", f"Δm, the mean gain over all tasks: {arm['delta']:+.2f} % ({arm['low']:+.2f} to "
                  f"{arm['high']:+.2f}), {len(arm['seeds'])} seeds."]  # fmt: skip
    return lines


def _figures(evaluation: dict[str, Any]) -> list[str]:
    """Figures over tasks, beside baselines on the same tasks."""
    lines = [
        f"On {evaluation.get('on', UNTOUCHED)}; 95 % confidence intervals (seed {evaluation['seed']}):",
        "",
        "| what | figure | mean | tasks | paired differences |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in evaluation["figures"]:
        paired = "; ".join(
            f"{each['baseline']}: {each['difference']:+.4f} ± {each['interval']:.4f}" for each in row["comparisons"]
        )
        mean = f"{row['mean']:.4f} ± {row['interval']:.4f}"
        lines.append(f"| {row['title']} | {row['metric']} | {mean} | {row['n']} | {paired} |")
    return lines


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
