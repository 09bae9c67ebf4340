"""The parser behind `vitexp fit` and its sisters: typed flags, and one clear sentence when a word is wrong."""

import difflib
import json
import re
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

# The line beneath a config field is its help text.
set_parsing_settings(docstring_parse_attribute_docstrings=True)

ARM = "arm"
_KEY = re.compile(r'(?:Parser key|[Kk]ey) "?\'?([\w.]+)"?\'?:?\s*', re.S)
_LITERAL = re.compile(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)", re.S)
_UNKNOWN = (re.compile(r"unrecognized arguments: (\S+)"), re.compile(r"[Kk]ey '?\"?([\w.]+)'?\"? is not expected"))


class Parser(LightningArgumentParser):
    """A parser that raises its errors, so that the door prints them once, in one form."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises: ValueError, with the message as one sentence."""
        raise ValueError(sentence(message, self.flags())) from ex

    def parse_string(self, content: str, *arguments: Any, **options: Any) -> Any:
        """A config from a file or from the command line, whatever the order in which it spells one group twice."""
        return super().parse_string(joined(content), *arguments, **options)

    def flags(self) -> list[str]:
        """Every dotted name this parser and its subcommands know."""
        names = [option[2:] for action in self._actions for option in action.option_strings if option.startswith("--")]
        for action in self._actions:
            for sub in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
                names += sub.flags() if isinstance(sub, Parser) else []
        return names


def joined(content: str) -> str:
    """A config in which no group is spelt both as a block and as dotted names: those move into the block.

    Left apart, a block that comes after a dotted name would silently put that value back to its default. What stands
    under `arm`, where a sweep sets options of several groups at once, is taken out of it first.

    Raises: ValueError for a value that is given in both ways.
    """
    try:
        config = get_loader("yaml")(content)
    except yaml.YAMLError:
        return content  # the parser itself says what is wrong
    if not isinstance(config, dict):
        return content
    arm = config.pop(ARM, {})
    if not isinstance(arm, dict) or arm.keys() & config.keys():
        raise ValueError(f"the config's {ARM} is {arm!r}; give a mapping of dotted keys that stand nowhere else")
    config |= arm
    moved = [key for key in config if "." in str(key) and isinstance(config.get(key.split(".")[0]), dict)]
    for key in moved:
        _move(config, key)
    return json.dumps(config) if moved or arm else content


def _move(config: dict[str, Any], key: str) -> None:
    """A dotted key at the top of a config into the block of its group."""
    *groups, name = key.split(".")
    block: Any = config
    for group in groups:
        block = block.setdefault(group, {}) if isinstance(block, dict) else block
    if not isinstance(block, dict) or name in block:
        raise ValueError(f"the config sets {key} twice, as a dotted name and inside its block; take one out")
    block[name] = config.pop(key)


def sentence(message: str, known: list[str]) -> str:
    """The parser's complaint as given, allowed, where, what to do."""
    text = " ".join(str(message).split())
    literal, key = _LITERAL.search(text), _KEY.search(text)
    if literal and key:
        allowed = ", ".join(part.strip(" '\"") for part in literal[1].split(","))
        return f"--{key[1]} is {literal[2].strip()!r}; allowed: {allowed}"
    unknown = _UNKNOWN[0].search(text) or _UNKNOWN[1].search(text)
    if unknown:
        return _unknown(unknown[1].split("=")[0].lstrip("-"), known)
    return f"--{key[1]}: {text[key.end() :]}" if key else text


def _unknown(name: str, known: list[str]) -> str:
    """A misspelt name, with the names it may have meant."""
    group = name.split(".")[0]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    inside = [other for other in known if other.startswith(f"{group}.") and not other.endswith(".help")]
    if near:
        hint = "did you mean " + ", ".join(f"--{other}" for other in near) + "?"
    elif inside and group != "trainer":
        hint = "allowed here: " + ", ".join(f"--{other}" for other in inside)
    else:
        hint = "`vitexp fit --help` lists every flag"
    return f"--{name} is no flag; {hint}"


def plain_words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Splits off what a resumed W&B sweep run adds (`--_wandb...`), which is no flag of ours."""
    extra = [word for word in arguments if word.startswith("--_wandb")]
    return [word for word in arguments if not word.startswith("--_wandb")], extra
