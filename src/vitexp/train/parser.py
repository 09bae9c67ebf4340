"""The parser behind `vitexp fit` and its sisters: typed flags, and one clear sentence when a word is wrong."""

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Union, get_args

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from vitexp import axes, own, strict

# The line beneath a config field is its help text.
set_parsing_settings(docstring_parse_attribute_docstrings=True)
register_type(axes.OwnPart)

ARM = "arm"
TRAINER = "trainer"
_OPTIONS = re.compile(r"((?:model|data|run)\.options)\.(\w+)\.(\w+)")
_MOST_SHOWN = 80
_SEEDS = 2**32
"""NumPy and Lightning take no larger ones."""

_KEY = re.compile(r'Parser key "([\w.]+)":?\s*')
_VALUE = re.compile(r"(?:Got|Given) value:\s?(.*?)(?= - | Given value|$)")
_TYPE = re.compile(r"<class '([\w.]+)'>|Literal\[(.*?)\]|subclass of (\w+)")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "null",
    "list": "a list such as [a, b]",
    "collections.abc.Iterable": "a list",
    "dict": "a mapping such as {a: 1}",
    "str": "text",
}
_CAUSES = (
    (re.compile(r"(?:^the following arguments are required: |- )([\w, ]+?)(?: is required|$)"), "{} is required"),
    (re.compile(r"given class_path '([^']*)': (.+?)(?= - |$)"), "{} cannot be used ({})"),
    (re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)"), "{} is no {}"),
    (re.compile(r"- --(\w[\w.]*) is (\S+); (.+?)(?= - |$)"), "its {} is {}; {}"),
    (re.compile(r"- --([\w.]+) is no flag"), "it has no option {}"),
    (re.compile(r"(?:Path is not a file|File does not exist): '(.*)'"), "{} is no file"),
    (re.compile(r"Problems parsing config: (.*)"), "{}"),
    (re.compile(r"Unable to load config '(.*?)' -"), "'{}' is no mapping of flags; set the flags below it one by one"),
)
_UNKNOWN = re.compile(
    r"unrecognized arguments: (\S+)|^\w+ '[\w.]+' does not accept option '([\w.]+)'|^Option '([\w.]+)'"
)
_ARGUMENT = re.compile(r"argument (?:\S+/)?(--\S+): (.*)")


class _NoSeed(argparse.ArgumentTypeError, ValueError):
    """The one message of a type that argparse passes on; jsonargparse passes on that of a ValueError."""


def seed(value: Any) -> int:
    """A seed, from the command line or from a config. Raises: ValueError."""
    if isinstance(value, bool) or not str(value).isdecimal() or int(value) >= _SEEDS:
        raise _NoSeed(f"{_shown(str(value))!r} is no seed; a whole number from 0 to {_SEEDS - 1} is needed")
    return int(value)


class _Seed:
    """`seed` as a type of the parser, whose help shows the text of it."""

    __call__ = staticmethod(seed)

    def __repr__(self) -> str:
        return "int"


_load = get_loader("yaml")


def _load_strictly(content: str) -> Any:
    """Every YAML text that the parser reads, be it a file or the value of a flag, is checked before it is built."""
    strict.check(content)
    return _load(content)


set_loader("yaml", _load_strictly, exceptions=(yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """A parser that raises its errors, so that the command line prints them once, in one form."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises: ValueError, with the message as one sentence."""
        raise ValueError(sentence(message, self.flags())) from ex

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Lightning also takes true for the seed, a random one; a run's seed is always a number."""
        if "--seed_everything" in names:
            words = "Seed of the weights, of the order of the images and of augmentation."
            options |= {"type": _Seed(), "help": words}
        return super().add_argument(*names, **options)

    def parse_path(self, path: Any, *arguments: Any, **options: Any) -> Any:
        """A config file, which is named where it is refused."""
        try:
            if not Path(path).is_fifo():  # what comes through a pipe can be read only once
                strict.check(strict.read(Path(path)))
            return super().parse_path(path, *arguments, **options)
        except yaml.YAMLError as error:
            raise ValueError(f"--config {path}: {strict.problem(error)}") from error

    def parse_string(self, content: str, *arguments: Any, **options: Any) -> Any:
        """A config from a file or from the command line, whatever the order in which it spells one group twice."""
        try:
            config = joined(content)
        except yaml.YAMLError as error:
            raise ValueError(f"the config is not YAML: {strict.problem(error)}") from error
        return super().parse_string(config, *arguments, **options)

    def read_whole_numbers_first(self) -> None:
        """Reads 2 as a whole number wherever a flag takes both kinds: for Lightning 1 is one batch and 1.0 all of them.

        Python keeps one object for Union[int, float] and Union[float, int], in the order of whichever was written first
        by any imported library, and the parser tries the types in that order.
        """
        for action in self._actions:
            kinds = get_args(getattr(action, "_typehint", None))
            if {int, float} <= set(kinds):
                ordered = [int, *(kind for kind in kinds if kind is not int)]
                action._typehint = Union[tuple(ordered)]  # type: ignore[attr-defined]  # noqa: UP007

    def show_words(self) -> None:
        """Lists in `--help` the words of a flag that takes a part of the user's own too."""
        for action in self._actions:
            kind = getattr(action, "_typehint", None)
            if axes.OwnPart in get_args(kind):
                action.metavar = f"{{{','.join(axes.words_of(kind))},{axes.PATH}}}"

    def flags(self) -> list[str]:
        """Every dotted name this parser and its subcommands know."""
        names = [option[2:] for action in self._actions for option in action.option_strings if option.startswith("--")]
        below = [action.choices.values() for action in self._actions if isinstance(action.choices, dict)]
        return names + [name for subs in below for sub in subs if isinstance(sub, Parser) for name in sub.flags()]


def joined(content: str) -> str:
    """A config in which no group is spelt both as a block and as dotted names: those move into the block.

    Left apart, a block that comes after a dotted name would silently put that value back to its default. What stands
    under `arm`, where a sweep sets options of several groups at once, is taken out of it first.

    Raises: ValueError for a value that is given in both ways, and for what is no mapping.
    """
    config = _load_strictly(content)
    if not isinstance(config, dict):
        given = "is empty" if not content.strip() else f"holds {_shown(content)}"
        raise ValueError(f"the config {given}; give a mapping of groups or dotted names, such as model.lr: 1.0e-3")
    if odd := [key for key in config if not isinstance(key, str)]:
        raise ValueError(f"the config has the key {odd[0]!r}, which is not text; give names of flags")
    arm = config.pop(ARM, {})
    if not isinstance(arm, dict) or arm.keys() & config.keys():
        raise ValueError(f"the config's {ARM} is {arm!r}; give a mapping of dotted keys that stand nowhere else")
    config |= arm
    own.check_downloaded([value for key, value in config.items() if key.partition(".")[0] == TRAINER])
    nested = [found for key in config if (found := _OPTIONS.fullmatch(key)) and key.split(".")[0] not in config]
    for found in nested:  # the parser takes these names as flags, but not as keys
        options, part, name = found.groups()
        config.setdefault(options, {}).setdefault(part, {})[name] = config.pop(found[0])
    moved = [key for key in config if "." in str(key) and isinstance(config.get(key.split(".")[0]), dict)]
    for key in moved:
        _move(config, key)
    return json.dumps(config) if moved or arm or nested else content


def trainer_values(words: Sequence[str]) -> list[str]:
    """What the flags of the trainer are given among the words of a command, before the parser reads it."""
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if re.match(rf"--{TRAINER}\b", name):
            found.append(value if equals else following)
    return found


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
    if argument := _ARGUMENT.match(text):
        return f"{argument[1]}: {argument[2]}".replace(": expected one argument", " needs a value")
    key = _KEY.search(text)
    if not key and (unknown := _UNKNOWN.search(text)):
        return _unknown(next(filter(None, unknown.groups())).split("=")[0].lstrip("-"), known)
    where = f"--{key[1]}" if key else ""
    for pattern, words in _CAUSES:
        if cause := pattern.search(text):
            return f"{where}{': ' * bool(key)}{words.format(*map(_shown, cause.groups()))}"
    value, allowed = _VALUE.findall(text), _allowed(text)
    if key and value and allowed:
        return f"{where} is {_shown(value[-1])!r}; {allowed}"
    return f"{where}: {_shown(text[key.end() :], 200)}" if key else _shown(text, 200)


def _allowed(text: str) -> str:
    """The types that the parser expected, in words."""
    types = _TYPE.findall(text.split("Given value type")[0])
    literals = [part.strip(" '\"") for _, listed, _ in types for part in listed.split(",") if listed]
    parents = [f"the class_path of a {parent}" for *_, parent in types if parent]
    kinds = [_WORDS.get(kind) or f"the class_path of a {kind.rpartition('.')[2]}" for kind, _, _ in types if kind]
    words = list(dict.fromkeys([*literals, *parents, *kinds]))
    if "a number" in words and "a whole number" in words:
        words.remove("a whole number")
    if literals:
        own = f", or {axes.PATH} of your own" if axes.OwnPart.__name__ in text else ""
        return f"allowed: {', '.join(word for word in words if 'OwnPart' not in word)}{own}"
    return f"{' or '.join(words)} is needed" if words else ""


def _shown(text: str, most: int = _MOST_SHOWN) -> str:
    """A value as a message can show it: printable, and not too long."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text.strip())
    return plain if len(plain) <= most else f"{plain[: most // 2]}...{plain[-most // 2 :]}"


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
