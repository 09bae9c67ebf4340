"""`vitexp table`: the table of a study on the terminal, and as Markdown, CSV and LaTeX beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.record import write_atomically
from vitexp.report import latex, markdown, tidy
from vitexp.report.escape import Visible
from vitexp.report.view import NOTHING, CellView, Section, View, make_view
from vitexp.study.select import Root
from vitexp.study.spec import Study, as_study
from vitexp.study.table import make_table

# A table on the terminal: verdicts stand beside their differences where there is room, beneath them elsewhere.

STYLES = {"worse": "red", "better": "green", "equivalent": "cyan"}
_BETWEEN = 3  # blanks between two columns


@dataclass(frozen=True)
class TerminalTable:
    """A table that lays itself out for the console that prints it."""

    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(self.view.title, style="bold")
        yield Text(self.view.setting, style="dim")
        yield from map(caution, self.view.cautions)
        for section in self.view.sections:
            yield Text()
            yield Text(section.title, style="bold")
            yield _grid(section, options.max_width) if section.columns else _list(section)
        for note in self.view.footnotes:
            yield footnote(note)
        yield Text()


def caution(text: str) -> RenderableType:
    """A sentence above the numbers that no reader may miss."""
    return Text(text, style="bold yellow")


def footnote(note: str) -> RenderableType:
    """One sentence below a table, with its point at the left."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row("·", Text(note))
    return grid


def _grid(section: Section, width: int) -> RichTable:
    labels = max(len(word) for text in (section.corner, *(label for label, _ in section.rows)) for word in text.split())
    beside = labels + sum(_BETWEEN + _widest(section, index) for index in range(len(section.columns))) + 2 <= width
    table = RichTable(box=box.HORIZONTALS, show_lines=True, pad_edge=False, header_style="")
    table.add_column(section.corner, style="bold", width=labels)
    for column in section.columns:
        table.add_column(column)
    for label, row in section.rows:
        table.add_row(label, *(Text(NOTHING, style="dim") if cell is None else _cell(cell, beside) for cell in row))
    return table


def _widest(section: Section, column: int) -> int:
    """What a column takes with its verdicts beside the differences."""
    cells = [row[column] for _, row in section.rows]
    lines = [line for cell in cells if cell is not None for line in _cell(cell, beside=True).plain.split("\n")]
    return max(map(len, (section.columns[column], *lines)))


def _list(section: Section) -> RichTable:
    """One line per arm."""
    table = RichTable(box=box.HORIZONTALS, pad_edge=False, header_style="")
    columns = section.listed()
    for name in columns:
        table.add_column(name, no_wrap=name in ("mean", "difference", "p (Holm)"))
    for texts in zip(*columns.values(), strict=True):
        table.add_row(*(Text(text, style=_list_style(name, text)) for name, text in zip(columns, texts, strict=True)))
    return table


def _list_style(name: str, text: str) -> str:
    return {"mean": "bold", "verdict": _style(text)}.get(name, "")


def _cell(cell: CellView, beside: bool) -> Text:
    text = Text(cell.mean, style="bold")
    if cell.baseline:
        text.append("  ◆ baseline", style="not bold")
    if cell.count:
        text.append(("  " if beside or not cell.baseline else "\n") + cell.count, style="not bold dim")
    if cell.difference:
        text.append(f"\n{cell.difference}" + ("  " if beside else "\n"), style="not bold")
        text.append(cell.verdict, style=f"not bold {_style(cell.verdict)}")
    for more in (cell.tuned, cell.paper):
        if more:
            text.append(f"\n{more}", style="not bold dim")
    return text


def _style(verdict: str) -> str:
    return STYLES.get(verdict.split(",")[0], "default")


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
    contents = {"table.md": markdown.table(view), "table.csv": tidy.table(table), "table.tex": latex.table(view)}
    return write_all(Path(results) / view.name, contents, TerminalTable(view))


def write_all(folder: Path, contents: Mapping[str, str], shown: RenderableType) -> Written:
    """Writes each content to the file of its name."""
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return Written(shown, tuple(folder / name for name in contents))


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
