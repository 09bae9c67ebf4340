"""The values that each axis of the network can take: one row for each, wherever torch must not be imported.

A row stands beside the part that it names, in a file of `nn/`, as the literal arguments of `part(...)`:

    @part("pos_embed", "1d", label="1-D", about="a learned vector per index of the raster sequence")
    class OneD(Position): ...

Everything else follows from the rows: types and `--help`, error sentences, labels of tables, the cost, contract tests.
Here the rows are read from the source with `ast`; nothing is imported or executed. `nn/table.py` holds the parts.
"""

import functools
import importlib.resources
from collections.abc import Iterator
from typing import NamedTuple

from vitexp.literal_calls import calls_in

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
    for call in calls_in(source, module, "part"):
        try:
            axis, word = call.arguments
            yield Row(axis, word, call.keywords["label"], call.keywords["about"], module)
        except (KeyError, ValueError) as error:
            where = f"line {call.line} of {module}"
            raise ValueError(f"{where}: part() needs an axis, a word, a label and about") from error


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
