"""`vitexp table`: the table of a study on the terminal, and as Markdown, CSV and LaTeX beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from vitexp.record import write_atomically
from vitexp.report import latex, markdown, tidy
from vitexp.report.escape import Visible
from vitexp.report.terminal import TerminalTable
from vitexp.report.view import make_view
from vitexp.study.select import Root
from vitexp.study.spec import Study, as_study
from vitexp.study.table import make_table

PLAIN_COLUMNS = 120
"""Width where there is no terminal to ask."""


@dataclass(frozen=True)
class Written:
    """What a command made: something to print, and the files it wrote."""

    renderable: RenderableType
    paths: tuple[Path, ...]


def write_table(
    sweep: str | Path | Study,
    runs: Root = "runs",
    results: str | Path = "results",
    where: Mapping[str, Any] | None = None,
) -> Written:
    """The table of the study in `sweep`, from the records in `runs`; writes results/NAME/table.{md,csv,tex}.

    Raises: ValueError when the study file is not sound, or the records do not make a table.
    """
    table = make_table(as_study(sweep), runs, where)
    view = make_view(table)
    folder = Path(results) / view.name
    contents = {"table.md": markdown.table(view), "table.csv": tidy.table(table), "table.tex": latex.table(view)}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return Written(TerminalTable(view), tuple(folder / name for name in contents))


def print_written(written: Written, console: Console | None = None) -> None:
    """Shows a result and where it lies."""
    where = Text("Written: " + ", ".join(str(path) for path in written.paths), style="dim")
    show(Group(written.renderable, where), console)


def show(renderable: RenderableType, console: Console | None = None) -> None:
    """Prints on a terminal as wide as it is, and elsewhere at a fixed width."""
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names in brackets are no styles
    console = console or Console(**plain)
    if not console.is_terminal:
        console = Console(file=console.file, width=PLAIN_COLUMNS, **plain)
    console.print(Visible(renderable))
