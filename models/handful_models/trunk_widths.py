"""Whether capacity limits what tasks share: one arm with trunks of several widths, by paired differences in Δm.

Where tasks hurt each other because a trunk is too small for all of them, Δm rises with its width. See `sharing.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ConfigInvalid
from .sharing import ArmSharing, by_seed, compare, delta_between
from .task_evaluation import Measured

WIDTHS = tuple(f"learner.options.{name}" for name in ("filters", "hidden", "width"))

Layers = tuple[int, ...]
Interval = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Sweep:
    """One arm with trunks of several widths.

    Attributes:
        name: Of the arm.
        lines: The widths of the trunk's layers, and the arm with them, by trained numbers.
        own: The widths that the arm itself has.
        gain: By how much the Δm of the widest is above that of the narrowest, and the 95 % interval.
        beyond: The same of the widest and the arm itself.
    """

    name: str
    lines: tuple[tuple[Layers, ArmSharing], ...]
    own: Layers
    gain: Interval
    beyond: Interval


def sweep(arms: Mapping[str, Sequence[Measured]], widths: Sequence[Measured], single: Sequence[Measured]) -> Sweep:
    """An arm and its runs with other widths against the same single-task models.

    Args:
        arms: Runs by the name of their config.
        widths: Runs that have the name of one of them.
        single: See `compare`.

    Raises:
        ConfigInvalid: no arm has the name, a run differs from it in more than the width, or a width has other seeds.
    """
    name = widths[0].run.read_config().name
    if name not in arms:
        raise ConfigInvalid(f"{widths[0].run.folder}: name: no arm {name} to compare with")
    arm = arms[name]
    groups: dict[Layers, list[Measured]] = {}
    for each in (*arm, *widths):
        _check_settings(each, arm[0])
        groups.setdefault(layers_of(each), []).append(each)
    _check_seeds(groups, arm)
    found = [(layers, compare(group, single, name=name, selection=None)) for layers, group in groups.items()]
    lines = tuple(sorted(found, key=lambda line: line[1].trained))
    narrowest, widest = (groups[lines[place][0]] for place in (0, -1))
    gain, beyond = (delta_between(widest, other, single) for other in (narrowest, arm))
    return Sweep(name, lines, layers_of(arm[0]), gain, beyond)


def layers_of(measured: Measured) -> Layers:
    """The width of each layer of the trunk."""
    return tuple(given for _, given in measured.learner.trunk.bank.form.layers)


def _check_settings(each: Measured, arm: Measured) -> None:
    found, wanted = _settings(each), _settings(arm)
    differing = [key for key in {**wanted, **found} if key not in WIDTHS and found.get(key) != wanted.get(key)]
    if len(layers_of(each)) != len(layers_of(arm)):
        differing.append("the number of layers in learner.options.hidden")
    if differing:
        raise ConfigInvalid(
            f"{each.run.folder}: {', '.join(differing)}: not as in {arm.run.folder}; widths alone may differ"
        )


def _settings(measured: Measured) -> dict[str, Any]:
    """What a run was trained with, by dotted names, but its seed; a default where the config names nothing."""
    config = measured.run.read_config().model_dump(exclude={"seed", "search"})
    config["learner"]["options"] = measured.learner.settings.model_dump()
    return _flat(config)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _check_seeds(groups: Mapping[Layers, Sequence[Measured]], arm: Sequence[Measured]) -> None:
    """One run of each seed for each width; a width that is the arm's own would have two."""
    wanted = sorted(by_seed(arm))
    for layers, group in groups.items():
        seeds = sorted(each.run.read_config().seed for each in group)
        if seeds != wanted:
            raise ConfigInvalid(f"seed: the widths {layers} have {seeds}, the arm has {wanted}")


def width_section(found: Sweep) -> str:
    """The part of the report: a line for each width, and what they say of capacity."""
    lines = [
        "", "## Trunk width", "",
        f"{found.name} with other widths of its trunk and no other setting changed; its own are in bold.", "",
        "| widths of the layers | trained numbers | Δm, % | interval | seeds |", "| --- | ---: | ---: | --- | --- |",
        *(_line(layers, arm, own=layers == found.own) for layers, arm in found.lines), "",
        verdict(found), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(layers: Layers, arm: ArmSharing, *, own: bool) -> str:
    widths = ", ".join(map(str, layers))
    cells = [f"**{widths}**" if own else widths, str(arm.trained), f"{arm.delta:+.2f}",
             f"{arm.low:+.2f} to {arm.high:+.2f}", ", ".join(map(str, arm.seeds))]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def verdict(found: Sweep) -> str:
    """One sentence on the widest and the narrowest trunk; one more where the arm itself is neither."""
    _, low, high = found.gain
    if low > 0:
        meaning = "more width helps: lack of capacity is a part of the cause"
    elif high < 0:
        meaning = "more width harms"
    else:
        meaning = "no evidence that capacity is what limits"
    text = f"From the narrowest trunk to the widest Δm changes by {_percent(found.gain)}: {meaning}."
    if found.own in (found.lines[0][0], found.lines[-1][0]):
        return text
    return f"{text} From the arm's own width to the widest it changes by {_percent(found.beyond)}."


def _percent(interval: Interval) -> str:
    value, low, high = interval
    return f"{value:+.2f} %, 95 % interval {low:+.2f} to {high:+.2f}"
