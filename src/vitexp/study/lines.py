"""What a study groups: the arms on a line of its curve against a cost, and the data sets of a suite."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SHARDS = "data.shards"
RELATIVE = "relative_flops"
MEASURED = ("train_flops", RELATIVE, "parameters", "train_seconds")
"""What a record holds of a run's cost; relative is divided by that of the baseline arm."""
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")
"""Factors by which a run costs more without being of another network."""

Groups = Mapping[str, Sequence[str]]
Overrides = Sequence[Mapping[str, Any]]
"""What each cell of a study sets, as dotted keys, without what is tuned and without the seed."""


def check_groups(groups: Groups, sets: Sequence[object]) -> None:
    """Accepts groups that hold every data set of the study once. Raises: ValueError otherwise."""
    _check_members("study.groups", groups, sets, SHARDS)
    named = [name for names in groups.values() for name in names]
    if twice := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"study.groups names {twice[0]} twice; a data set belongs to one group")


def check_lines(x: str, lines: Groups, cells: Overrides, baseline: Mapping[str, Any]) -> None:
    """Accepts an axis that was measured, and lines of two arms or more that hold every value of one factor.

    Raises: ValueError otherwise, and for lines or an axis that would have no effect.
    """
    if lines and x not in MEASURED:
        raise ValueError(
            f"study.lines has no effect beside study.x {x!r}; set study.x to one of {', '.join(MEASURED)}, or leave "
            "study.lines out"
        )
    if x == RELATIVE:
        _check_relative(cells, baseline)
    if lines:
        key = lines_key(lines, cells)
        _check_members("study.lines", lines, list(dict.fromkeys(cell[key] for cell in cells if key in cell)), key)
        arms = {_text(dict(cell)): cell.get(key) for cell in cells}
        for line, names in lines.items():
            if sum(value in names for value in arms.values()) < 2:
                raise ValueError(f"study.lines gives {line} a single arm, {names[0]}; a line takes two or more")


def lines_key(lines: Groups, cells: Overrides) -> str:
    """The factor whose values the lines name: the one with the most of them."""
    named = {name for names in lines.values() for name in names}
    keys = list(dict.fromkeys(key for cell in cells for key in cell))
    held = {key: {cell[key] for cell in cells if isinstance(cell.get(key), str)} for key in keys}
    varied = [key for key in keys if len({_text(cell.get(key)) for cell in cells}) > 1] or keys
    return max(varied, key=lambda key: len(held[key] & named))


def _check_relative(cells: Overrides, baseline: Mapping[str, Any]) -> None:
    if not baseline:
        raise ValueError(f"study.x is {RELATIVE}, which is relative to the baseline; name it with study.baseline")
    known = {_text(dict(cell)) for cell in cells}
    alone = next((cell for cell in cells if _text({**cell, **baseline}) not in known), None)
    if alone is not None:
        raise ValueError(
            f"study.x is {RELATIVE}, but there is no baseline for {dict(alone)}, which with {dict(baseline)} is no "
            "cell; name a value of every factor in study.baseline"
        )


def _check_members(setting: str, groups: Groups, values: Sequence[object], key: str) -> None:
    for group, names in groups.items():
        if absent := [name for name in names if name not in values]:
            known = ", ".join(map(str, values))
            raise ValueError(f"{setting} has {absent[0]} in {group}, which is no value of {key}: {known}")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{setting} names {twice[0]} twice in {group}; once is enough")
    if left := [value for value in values if not any(value in names for names in groups.values())]:
        raise ValueError(f"{setting} has no place for {left[0]}, a value of {key}; put it into one of its lists")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
