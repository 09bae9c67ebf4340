"""What may stand on the horizontal axis of a curve because the runs recorded it, and which arms make a line there."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# Which data sets of a study belong together.

SHARDS = "data.shards"


def check_groups(groups: Mapping[str, Sequence[str]], sets: Sequence[object]) -> None:
    """Accepts groups that hold every data set of the study once. Raises: ValueError otherwise."""
    named = [name for names in groups.values() for name in names]
    if twice := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"study.groups names {twice[0]} twice; a data set belongs to one group")
    if ungrouped := [str(name) for name in sets if name not in named]:
        raise ValueError(f"study.groups has no place for {ungrouped[0]}, a value of {SHARDS}; put it into a group")
    if absent := [name for name in named if name not in sets]:
        raise ValueError(f"study.groups names {absent[0]}, which is no value of {SHARDS}")


RELATIVE = "relative_flops"
MEASURED = ("train_flops", RELATIVE, "parameters", "train_seconds")
"""What a record holds of a run's cost; relative is divided by that of the baseline arm."""
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")
"""Factors by which a run costs more without being of another network."""

Overrides = Sequence[Mapping[str, Any]]
"""What each cell of a study sets, as dotted keys, without what is tuned and without the seed."""


def check_lines(x: str, lines: Mapping[str, Sequence[str]], cells: Overrides, baseline: Mapping[str, Any]) -> None:
    """Accepts an axis that was measured, and lines that put every value of one factor somewhere.

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
        _check_values(lines, cells)


def lines_key(lines: Mapping[str, Sequence[str]], cells: Overrides) -> str:
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
        absent = {key: value for key, value in {**alone, **baseline}.items() if alone.get(key) != value}
        raise ValueError(
            f"study.x is {RELATIVE}, but there is no baseline for {dict(alone)}, which with {absent} is no cell; name "
            "a value of every factor in study.baseline"
        )


def _check_values(lines: Mapping[str, Sequence[str]], cells: Overrides) -> None:
    key = lines_key(lines, cells)
    values = list(dict.fromkeys(cell[key] for cell in cells if key in cell))
    arms = {_text(dict(cell)): cell.get(key) for cell in cells}
    for line, names in lines.items():
        if absent := [name for name in names if name not in values]:
            known = ", ".join(map(str, values))
            raise ValueError(f"study.lines puts {absent[0]} on {line}, which is no value of {key}: {known}")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"study.lines names {twice[0]} twice on {line}; once is enough")
        if sum(value in names for value in arms.values()) < 2:
            raise ValueError(f"study.lines gives {line} a single arm, {names[0]}; a line takes two or more")
    if ungrouped := [value for value in values if not any(value in names for names in lines.values())]:
        raise ValueError(f"study.lines has no line for {ungrouped[0]}, a value of {key}; put it on one, or on several")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
