"""The cells of a study: points of the search space with the factors that vary among them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitexp.record import flatten

SEED = "seed_everything"
ARM = "arm"
"""The parameter whose values set options of several groups at once, as dotted keys; the door takes it apart alike."""


@dataclass(frozen=True)
class Cell:
    """One run of a study: its arguments as an agent receives them, and as dotted keys without those of the study."""

    index: int
    arguments: dict[str, Any]
    overrides: dict[str, Any]
    label: str
    seed: int | None

    @property
    def args_json(self) -> str:
        """What the file behind ${args_json_file} holds."""
        return json.dumps(self.arguments)


def make_cells(points: Sequence[dict[str, Any]]) -> list[Cell]:
    """One cell for each point, labelled by what varies.

    Raises: ValueError when two parameters set the same key.
    """
    flat = [_flatten_arguments(point) for point in points]
    words = _short_names(varying(flat))
    return [
        Cell(index, point, values, _label(values, words), values.get(SEED))
        for index, (point, values) in enumerate(zip(points, flat, strict=True))
    ]


def make_cell(index: int, point: dict[str, Any], factors: Sequence[str]) -> Cell:
    """A single cell of a study with these factors, whose other points are not known yet."""
    values = _flatten_arguments(point)
    return Cell(index, point, values, _label(values, _short_names(factors)), values.get(SEED))


def _flatten_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if name.split(".")[0] == "study":
            continue
        if name == ARM and not isinstance(value, Mapping):
            raise ValueError(f"{ARM} is {value!r}; give a mapping of dotted keys, such as {{model.arch: B/16}}")
        for key, item in flatten(value if name == ARM else {name: value}).items():
            if key in flat:
                raise ValueError(f"two parameters set {key}; take one out")
            flat[key] = item
    return flat


def varying(flat: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The keys whose values are not the same everywhere."""
    keys = sorted(set().union(*flat))
    absent = object()
    return tuple(
        key for key in keys if any(_differ(cell.get(key, absent), flat[0].get(key, absent)) for cell in flat[1:])
    )


def _differ(one: Any, other: Any) -> bool:
    return type(one) is not type(other) or one != other


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key with the shortest tail that no other one has."""
    short = {SEED: "seed"}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        alone = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in keys) == 1)
        short.setdefault(key, next(alone, key))
    return {key: short[key] for key in keys}


def _label(values: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return " ".join(f"{word}={values[key]}" for key, word in words.items() if key in values) or "the only cell"
