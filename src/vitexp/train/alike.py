"""Plans of the cells of a study: one of each kind goes through the whole parser, which takes most of a plan's time.

A kind is a command line and the content of its config files, apart from the seed and those options of the network and
its optimizer that stand in the last file as the plain value that their type asks for. For another cell of a kind only
these are put into the run that was planned, and checked as the run checks them. Whatever is not certain to mean the
same, and all that is refused here, goes through the whole parser, so every refusal is the parser's.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from vitexp import axes
from vitexp.train.command import TrainingCommand
from vitexp.train.config import ClassifyConfig
from vitexp.train.parser import ARM

SEED = "seed_everything"
_FREE = "\0free"
_APART = ("--run.", "--trainer.", "--study.")
"""What a word may begin with that cannot set an option of the network, nor the seed."""

Plan = Callable[[Sequence[str]], TrainingCommand]


class Kinds:
    """The kinds that this process has planned; it must not outlive a change of data sets or weights on disk."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.planned: dict[str, TrainingCommand] = {}

    def facts(self, given: Sequence[str]) -> tuple[TrainingCommand, dict[str, Any]]:
        """The command that was planned for this kind, and the facts of this very run. Raises: as the parser does."""
        kind, options = kind_of(given)
        if known := self.planned.get(kind):
            try:
                return known, known.facts_of(options)
            except Exception:  # whatever it is, the whole parser says it
                del self.planned[kind]
        command = self.plan(given)
        if kind and _arrived(command, options):
            self.planned[kind] = command
        return command, command.facts()


def kind_of(given: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The kind of a command line, empty where it has none, and the options in which cells of the kind differ."""
    words, files = list(given), []
    while "--config" in words[:-1]:
        place = words.index("--config")
        files.append(words[place + 1])
        del words[place : place + 2]
    if not files or words[:1] != ["fit"] or not all(word.startswith(_APART) and "=" in word for word in words[1:]):
        return "", {}
    try:
        *others, last = [Path(file).read_bytes() for file in files]
        options: dict[str, Any] = {}
        own = json.loads(last)
        shape = _shape(own, "", options) if isinstance(own, dict) and b"\\u0000" not in last else None
    except (OSError, ValueError):
        return "", {}
    return (json.dumps([words, [str(one) for one in others], files[:-1], shape]), options) if options else ("", {})


def _shape(config: Mapping[str, Any], prefix: str, options: dict[str, Any]) -> dict[str, Any]:
    """A config with its free values taken out of it, into `options`. Raises: ValueError for one that is set twice."""
    shape: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            shape[key] = _shape(value, "" if name == ARM else f"{name}.", options)
        elif _is_free(name, value):
            if name in options:
                raise ValueError(name)
            shape[key], options[name] = f"{_FREE} {type(value).__name__}", value
        else:
            shape[key] = value
    return shape


def _is_free(name: str, value: Any) -> bool:
    """Whether it is certain that the parser takes the value as it is."""
    if name == SEED:
        return type(value) is int
    kind = _types().get(name)
    if words := axes.words_of(kind):  # a part of the user's own is not free
        return isinstance(value, str) and value in words
    return kind in (int, float, str) and type(value) is kind and (kind is not float or math.isfinite(value))


@cache
def _types() -> dict[str, Any]:
    hints = get_type_hints(ClassifyConfig)
    return {f"model.{field.name}": hints[field.name] for field in fields(ClassifyConfig)}


def _arrived(command: TrainingCommand, options: Mapping[str, Any]) -> bool:
    """Whether the parser has taken every option as it was given."""
    parsed = command.parsed | {f"model.{name}": value for name, value in command.parsed["model"].items()}
    return all(type(parsed[name]) is type(value) and parsed[name] == value for name, value in options.items())
