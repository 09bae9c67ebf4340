"""The `command:` of a sweep, expanded as a W&B agent expands it, down to the arguments that follow the word vitexp."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

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
