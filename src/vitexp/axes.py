"""The values that each axis of the network can take: one row for each, wherever torch must not be imported.

A row stands beside the part that it names, in a file of `nn/`, as the literal arguments of `part(...)`:

    @part("pos_embed", "1d", label="1-D", about="a learned vector per index of the raster sequence")
    class OneD(Position): ...

Everything else follows from the rows: types and `--help`, error sentences, labels of tables, the cost, contract tests.
Here the rows are read from the source with `ast`; nothing is imported or executed. `nn/table.py` holds the parts.
"""

import ast
import functools
import importlib.resources
from collections.abc import Iterator
from typing import NamedTuple

PACKAGE = "vitexp.nn"


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
    """All rows, file by file in alphabetical order, and in the order of the lines within each."""
    files = importlib.resources.files("vitexp").joinpath("nn").iterdir()
    sources = {file.name.removesuffix(".py"): file for file in files if file.name.endswith(".py")}
    return tuple(
        row for name in sorted(sources) for row in rows_in(sources[name].read_text("utf-8"), f"{PACKAGE}.{name}")
    )


def rows_in(source: str, module: str) -> Iterator[Row]:
    """The rows of one source file. Raises: ValueError for a row whose arguments are not literals."""
    if "part(" not in source:
        return
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "part")
    for call in sorted(named, key=lambda call: (call.lineno, call.col_offset)):
        try:
            axis, word = map(ast.literal_eval, call.args)
            texts = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
            yield Row(axis, word, **texts, module=module)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"line {call.lineno} of {module}: part() needs an axis, a word, a label and about, all written out as "
                "plain strings, because they are read without running the file"
            ) from error


def of(axis: str) -> tuple[Row, ...]:
    """The rows of one axis, in the order of `--help`."""
    return tuple(row for row in rows() if row.axis == axis)


def words(axis: str) -> tuple[str, ...]:
    """The values of an axis as a user writes them."""
    return tuple(row.word for row in of(axis))


def labels() -> dict[str, dict[str | None, str]]:
    """The label of each value, by axis."""
    found: dict[str, dict[str | None, str]] = {}
    for row in rows():
        found.setdefault(row.axis, {})[row.word] = row.label
    return found


def check(axis: str, word: str) -> None:
    """Raises: ValueError for a word that the axis does not have."""
    if word not in words(axis):
        raise ValueError(f"{axis} {word!r} is unknown; allowed are {', '.join(words(axis))}")


def described(axis: str, intro: str) -> str:
    """What `--help` says about an axis: its meaning, and then each value."""
    return f"{intro}: " + "; ".join(f"{row.about} ({row.word})" for row in of(axis))
