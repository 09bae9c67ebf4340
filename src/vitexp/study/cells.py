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
    """The arguments that an agent would start.

    Raises: ValueError for a macro that is unknown or only part of a word: an agent would drop or keep it silently.
    """
    flags = {name: value for name, value in arguments.items() if value is not False}
    macros = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program] if program else [],
        "args": [f"--{name}={value}" for name, value in arguments.items()],
        "args_no_hyphens": [f"{name}={value}" for name, value in arguments.items()],
        "args_no_boolean_flags": [f"--{k}" if value is True else f"--{k}={value}" for k, value in flags.items()],
        "args_json": [json.dumps(arguments)],
        "args_json_file": [json_path],
    }
    argv: list[str] = []
    for item in command:
        word = _ENVIRONMENT.sub(_from_environment, str(item))
        macro = _MACRO.search(word)
        if macro and macro[1] not in macros:
            known = ", ".join(f"${{{name}}}" for name in macros)
            raise ValueError(f"the command has {macro[0]}, which is none of {known}; take it out")
        if macro and macro[0] != word:
            raise ValueError(f"the command has {word!r}, but a macro only expands as a whole word; split it in two")
        argv += macros[macro[1]] if macro else [word]
    return argv


def _from_environment(macro: re.Match[str]) -> str:
    if macro[1] not in os.environ:
        raise ValueError(f"the command needs the environment variable {macro[1]}, which is not set; set it")
    return os.environ[macro[1]]


def arguments_of_vitexp(argv: Sequence[str]) -> list[str]:
    """What follows the program in an expanded command. Raises: ValueError where that is not `vitexp fit`."""
    rest = list(argv[1:] if argv[:1] == ["/usr/bin/env"] else argv)
    if rest and _PYTHON.fullmatch(PurePosixPath(rest[0]).name):
        rest = rest[2:] if rest[1:2] == ["-m"] else rest[1:]
    program = PurePosixPath(rest[0] if rest else "")
    if program.name != "vitexp" and program.parts[-2:] not in (("vitexp", "__main__.py"), ("vitexp", "cli.py")):
        raise ValueError(f"the command starts {' '.join(argv[:3])!r}, which is not vitexp; write {ADVICE}")
    if rest[1:2] != ["fit"]:
        raise ValueError(f"the command runs {' '.join(rest[:2])!r}; a study runs `vitexp fit`: write {ADVICE}")
    return rest[1:]


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
    """One cell for each point, labelled by what varies. Raises: ValueError when two parameters set the same key."""
    flat = [_flatten_arguments(point) for point in points]
    words = _short_names(varying(flat))
    return [_cell(index, point, values, words) for index, (point, values) in enumerate(zip(points, flat, strict=True))]


def make_cell(index: int, point: dict[str, Any], factors: Sequence[str]) -> Cell:
    """A single cell of a study with these factors."""
    return _cell(index, point, _flatten_arguments(point), _short_names(factors))


def _cell(index: int, point: dict[str, Any], values: dict[str, Any], words: Mapping[str, str]) -> Cell:
    settings = [f"{word}={values[key]}" for key, word in words.items() if key in values]
    return Cell(index, point, values, " ".join(settings) or "the only cell", values.get(SEED))


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
    """The keys whose values are not the same everywhere; true is not 1 here, and absent not null."""
    absent, found = object(), []
    for key in sorted(set().union(*flat)):
        first, *others = (cell.get(key, absent) for cell in flat)
        if any(type(other) is not type(first) or other != first for other in others):
            found.append(key)
    return tuple(found)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key with the shortest tail that no other one has."""
    short = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        alone = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in keys) == 1)
        short[key] = "seed" if key == SEED else next(alone, key)
    return short
