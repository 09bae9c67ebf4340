"""The values that each axis of the network can take: one row for each, wherever torch must not be imported.

A row stands beside the part that it names, in a file of `nn/`, as the literal arguments of `part(...)`:

    @part("pos_embed", "1d", label="1-D", about="a learned vector per index of the raster sequence")
    class OneD(Position): ...

Everything else follows from the rows: types and `--help`, error sentences, labels of tables, the cost, contract tests.
Here the rows are read from the source with `ast`; nothing is imported or executed. `nn/table.py` holds the parts, and
`metrics.py` reads its rows in the same way.
"""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Literal, NamedTuple, get_args, get_origin

SLOTS = {
    **dict.fromkeys(("pos_embed", "pool", "stem", "attention", "mlp", "norm"), "model"),
    **dict.fromkeys(("optimizer", "schedule", "loss"), "model"),
    "auto_augment": "data", "evaluators": "run",
}  # fmt: skip
"""Axes that also take a part of the user's own, by import path, and their groups of options."""
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_OF_PART = re.compile(r"(\w+)\.(?:options|sources)\.(\w+).*")
_LABELS: dict[tuple[str, str], str] = {}


class LiteralCall(NamedTuple):
    """A call of a decorator whose arguments are literals, with the module and line that it stands in."""

    module: str
    line: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def literal_calls(package: str, function: str) -> Iterator[LiteralCall]:
    """The calls of `function` in a sub-package of vitexp, by file and line. Raises: ValueError where not literal."""
    files = resources.files("vitexp").joinpath(package).iterdir()
    sources = {file.name.removesuffix(".py"): file for file in files if file.name.endswith(".py")}
    for name in sorted(sources):
        yield from calls_in(sources[name].read_text("utf-8"), f"vitexp.{package}.{name}", function)


def calls_in(source: str, module: str, function: str) -> Iterator[LiteralCall]:
    """The same in a text."""
    if f"{function}(" not in source:
        return
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function)
    for call in sorted(named, key=lambda call: call.lineno):
        try:
            arguments = tuple(map(ast.literal_eval, call.args))
            keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        except ValueError as error:
            raise ValueError(
                f"line {call.lineno} of {module}: write the arguments of {function}() out as plain values, because "
                "they are read without running the file"
            ) from error
        yield LiteralCall(module, call.lineno, arguments, keywords)


class Row(NamedTuple):
    """One value of an axis."""

    axis: str
    """the option of `ViTConfig`, "pos_embed\""""
    word: str
    """the value as a user writes it, "1d\""""
    label: str
    """the value as a table or figure shows it, "1-D\""""
    about: str
    """what it does, as half a sentence for `--help`"""
    module: str
    """the module in which the part is defined"""


@functools.cache
def rows() -> tuple[Row, ...]:
    """All rows, in the order of files and lines. Raises: ValueError naming the line of one that is not a row."""
    return tuple(map(as_row, literal_calls("nn", "part")))


def as_row(call: LiteralCall) -> Row:
    """The row that a call of `part` stands for. Raises: ValueError."""
    try:
        return Row(*call.arguments, **call.keywords | {"module": call.module})
    except TypeError as error:
        where = f"line {call.line} of {call.module}"
        raise ValueError(f"{where}: part() needs an axis, a word, a label and about") from error


def of(axis: str) -> tuple[Row, ...]:
    """The rows of one axis, in the order of `--help`."""
    return tuple(row for row in rows() if row.axis == axis)


def values(axis: str) -> tuple[str, ...]:
    """The values of an axis as a user writes them."""
    return tuple(row.word for row in of(axis))


def labels() -> dict[str, dict[str | None, str]]:
    """The label of each value, by axis."""
    return {axis: {row.word: row.label for row in of(axis)} for axis in dict.fromkeys(row.axis for row in rows())}


def check(axis: str, word: str) -> None:
    """Raises: ValueError for a word that the axis does not have, and that is no path where it takes one."""
    if word not in values(axis) and not (axis in SLOTS and is_path(word)):
        own = f", or {PATH} of your own" if axis in SLOTS else ""
        raise ValueError(f"{axis} {word!r} is unknown; allowed are {', '.join(values(axis))}{own}")


def described(axis: str, intro: str) -> str:
    """What `--help` says about an axis: its meaning, and then each value."""
    return f"{intro}: " + "; ".join(f"{row.about} ({row.word})" for row in of(axis))


# A part of the user's own stands where a word could: `my_ideas:Alibi2D`, a class in a file of the working folder.

PATH = "MODULE:NAME"
"""How help and errors write such a path."""


class OwnPart(str):
    """The type of an option that takes a path beside its words. Raises: ValueError for any other text."""

    def __new__(cls, text: str) -> "OwnPart":
        """From text."""
        if not is_path(text):
            raise ValueError(f"no {PATH}")
        return super().__new__(cls, text)


def words_of(kind: Any) -> tuple[str, ...]:
    """The words of an option's type, whether or not it takes a path too."""
    kinds = [kind, *get_args(kind)]
    return next((get_args(one) for one in kinds if get_origin(one) is Literal), ())


def is_path(word: object) -> bool:
    """Whether a value names a part of the user's own."""
    return isinstance(word, str) and _PATH.fullmatch(word) is not None


def is_own(key: str, value: object) -> bool:
    """The same for a value of a dotted key."""
    group, _, axis = key.partition(".")
    return SLOTS.get(axis) == group and is_path(value)


def factor_of(key: str) -> str:
    """The option that a dotted key belongs to: options and the source of a part of the user's own go with the part."""
    return _OF_PART.sub(r"\1.\2", key)


def own_label(key: str, path: str) -> str:
    """The label of such a part: as the records that were read say, or else the name of its class."""
    return _LABELS.get((key, path), path.rpartition(":")[2])


def learn(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Takes the labels from the `parts` of a record, so that nobody has to import the user's file."""
    _LABELS.update({(key, str(part.get("value"))): str(part.get("label")) for key, part in parts.items()})
