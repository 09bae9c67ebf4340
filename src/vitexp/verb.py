"""What the tables of commands are written in: a command, and short words for its arguments."""

import argparse
from dataclasses import dataclass
from typing import Any

Argument = tuple[tuple[str, ...], dict[str, Any]]
"""What argparse's `add_argument` takes, and `group`: the heading under which `--help` shows it."""


@dataclass(frozen=True)
class Verb:
    """One command.

    `run` takes the parsed arguments and returns an exit status. With `own_parser` it takes the command line as a list
    instead, because the flags come from the typed parser of training.
    """

    name: str
    help: str
    run: str = ""
    arguments: tuple[Argument, ...] = ()
    description: str | None = None
    """What its own `--help` says first, if that is more than `help`"""
    verbs: tuple["Verb", ...] = ()
    """Commands below this one, such as `shards make`"""
    own_parser: bool = False


def row(*names: str, **options: Any) -> Argument:
    """An argument as argparse takes it."""
    return names, options


def flag(name: str, help: str) -> Argument:
    """A switch."""
    return row(name, action="store_true", help=help)


def count(text: str) -> int:
    """A whole number of at least 1. Raises: argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def share(text: str) -> float:
    """A number of at least 0. Raises: argparse.ArgumentTypeError."""
    if not text.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0, such as 0.5")
    return float(text)


def typed(name: str, help: str, run: str = "vitexp.cli:train") -> Verb:
    """A command whose flags come from the typed parser of training."""
    return Verb(name, help, run, own_parser=True)
