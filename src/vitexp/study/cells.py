"""The cells of a study: points of the search space with the factors that vary among them."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vitexp.record import flatten

# The `command:` of a sweep, expanded as a W&B agent expands it, down to the arguments that follow the word vitexp.

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
ADVICE = 'command: ["${env}", "vitexp", "fit", "--config", "experiments/NAME.yaml", "--config", "${args_json_file}"]'
AS_TEXT = {"${args}", "${args_no_hyphens}", "${args_no_boolean_flags}"}
_MACRO = re.compile(r"\$\{([^}]*)\}")
_ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
_PYTHON = re.compile(r"python[\d.]*")


def expand(command: Sequence[str], program: str | None, arguments: Mapping[str, Any], json_path: str) -> list[str]:
    """The words that an agent would start.

    Raises: ValueError for a macro that is unknown or only part of a word: an agent would drop or keep it silently.
    """
    macros = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program] if program else [],
        "args": [f"--{name}={value}" for name, value in arguments.items()],
        "args_no_hyphens": [f"{name}={value}" for name, value in arguments.items()],
        "args_no_boolean_flags": [_flag(name, value) for name, value in arguments.items() if value is not False],
        "args_json": [json.dumps(arguments)],
        "args_json_file": [json_path],
    }
    return [word for item in command for word in _expand_item(_from_environment(str(item)), macros)]


def arguments_of_vitexp(words: Sequence[str]) -> list[str]:
    """What follows the program in an expanded command.

    Raises: ValueError when the program is not vitexp, or its verb is not fit.
    """
    rest = list(words[1:] if words[:1] == ["/usr/bin/env"] else words)
    if rest and _PYTHON.fullmatch(PurePosixPath(rest[0]).name):
        rest = rest[2:] if rest[1:2] == ["-m"] else rest[1:]
    if not rest or not _is_vitexp(PurePosixPath(rest[0])):
        raise ValueError(f"the command starts {' '.join(words[:3])!r}, which is not vitexp; write {ADVICE}")
    if rest[1:2] != ["fit"]:
        raise ValueError(f"the command runs {' '.join(rest[:2])!r}; a study runs `vitexp fit`: write {ADVICE}")
    return rest[1:]


def _is_vitexp(program: PurePosixPath) -> bool:
    return program.name == "vitexp" or program.parts[-2:] in (("vitexp", "__main__.py"), ("vitexp", "cli.py"))


def _expand_item(item: str, macros: Mapping[str, list[str]]) -> list[str]:
    macro = _MACRO.search(item)
    if macro is None:
        return [item]
    if macro[1] not in macros:
        known = ", ".join(f"${{{name}}}" for name in macros)
        raise ValueError(f"the command has {macro[0]}, which is none of {known}; take it out")
    if macro[0] != item:
        raise ValueError(f"the command has {item!r}, but a macro only expands as a whole word; split it in two")
    return macros[macro[1]]


def _from_environment(item: str) -> str:
    for name in _ENVIRONMENT.findall(item):
        if name not in os.environ:
            raise ValueError(f"the command needs the environment variable {name}, which is not set; set it")
    return _ENVIRONMENT.sub(lambda match: os.environ[match[1]], item)


def _flag(name: str, value: Any) -> str:
    return f"--{name}" if value is True else f"--{name}={value}"


SEED = "seed_everything"
ARM = "arm"
"""The parameter whose values set options of several groups at once, as dotted keys; the parser takes it apart alike."""


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
