"""`vitexp table`: the table of a study on the terminal, and as Markdown, CSV and LaTeX beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.record import write_atomically
from vitexp.report import tidy
from vitexp.report.markup import study_as_latex, study_as_markdown, visible
from vitexp.report.view import NOTHING, CellView, Section, View, make_view
from vitexp.study.select import Root
from vitexp.study.spec import Study, as_study
from vitexp.study.table import Table, make_table

Sweep = str | Path | Study
Where = Mapping[str, Any] | None
STYLES = {"worse": "red", "better": "green", "equivalent": "cyan"}
_UNBROKEN = ("mean", "difference", "p (adjusted)")
PLAIN_COLUMNS = 120
"""Width where there is no terminal to ask."""


@dataclass(frozen=True)
class Written:
    """What a command made: something to print, and the files it wrote."""

    renderable: RenderableType
    paths: tuple[Path, ...]


def write_table(sweep: Sweep, runs: Root = "runs", results: str | Path = "results", where: Where = None) -> Written:
    """The table of the study in `sweep`, from the records in `runs`; writes results/NAME/table.{md,csv,tex}.

    Raises: ValueError when the study file is not sound, or the records do not make a table.
    """
    table = make_table(as_study(sweep), runs, where)
    return write_view(table, make_view(table), Path(results) / table.study.name / "table")


def write_view(table: Table, view: View, stem: Path) -> Written:
    """Writes a table in words as STEM.{md,tex}, and its numbers as STEM.csv."""
    contents = {"md": study_as_markdown(view), "csv": tidy.table(table), "tex": study_as_latex(view)}
    return write_all(stem.parent, {f"{stem.name}.{kind}": text for kind, text in contents.items()}, TerminalTable(view))


def write_all(folder: Path, contents: Mapping[str, str], shown: RenderableType) -> Written:
    """Writes each content to the file of its name."""
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return Written(shown, tuple(folder / name for name in contents))


def print_written(written: Written) -> None:
    """Shows a result and where it lies."""
    show(written.renderable, Text("Written: " + ", ".join(map(str, written.paths)), style="dim"))


def show(*parts: RenderableType) -> None:
    """Prints on a terminal as wide as it is, and elsewhere at a fixed width; control characters in texts are seen."""
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names in brackets are no styles
    console = Console(**plain)
    if not console.is_terminal:
        console = Console(width=PLAIN_COLUMNS, **plain)
    console.print(Segments(map(_visible, console.render(Group(*parts)))), end="")


def _visible(segment: Segment) -> Segment:
    lines = segment.text.split("\n")  # a text that was wrapped holds its line ends
    return segment if segment.control else Segment("\n".join(map(visible, lines)), segment.style)


@dataclass(frozen=True)
class TerminalTable:
    """A table that lays itself out for the console that prints it.

    Verdicts stand beside their differences where there is room, beneath them elsewhere.
    """

    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(self.view.title, style="bold")
        yield Text(self.view.setting, style="dim")
        yield from map(caution, self.view.cautions)
        for section in self.view.sections:
            yield Text()
            yield Text(section.title, style="bold")
            table = _table(section, beside=True)
            wide = Measurement.get(console, options.update(max_width=10**6), table).maximum > options.max_width
            yield _table(section, beside=False) if wide else table
        yield from map(footnote, self.view.footnotes)
        yield Text()


def caution(text: str) -> RenderableType:
    """A sentence above the numbers that no reader may miss."""
    return Text(text, style="bold yellow")


def footnote(note: str) -> RenderableType:
    """One sentence below a table, with its point at the left."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row("·", Text(note))
    return grid


def lines(header: Iterable[str], rows: Iterable[Sequence[str]] = ()) -> RichTable:
    """Texts as a table of one line a row, between rules."""
    table = RichTable(*header, box=box.HORIZONTALS, pad_edge=False, header_style="")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _table(section: Section, beside: bool) -> RichTable:
    """A grid of cells, or one line per arm."""
    header, rows = section.as_table(_text, lambda cell: _cell(cell, beside))
    labels = max(len(word) for text in (section.corner, *(label for label, _ in section.rows)) for word in text.split())
    table = RichTable(box=box.HORIZONTALS, show_lines=bool(section.columns), pad_edge=False, header_style="")
    for name in header:
        first = bool(section.columns) and not table.columns
        table.add_column(name, width=labels if first else None, no_wrap=name in _UNBROKEN)
    for row in rows:
        table.add_row(*row)
    return table


def _text(text: str) -> Text:
    return Text(text, style="dim" if text == NOTHING else STYLES.get(text.split(",")[0], ""))


def _cell(cell: CellView, beside: bool) -> Text:
    text = Text(cell.mean)
    if cell.baseline:
        text.append("  ◆ baseline", style="not bold")
    if cell.count:
        text.append(("  " if beside or not cell.baseline else "\n") + cell.count, style="not bold dim")
    if cell.difference:
        text.append(f"\n{cell.difference}" + ("  " if beside else "\n"), style="not bold")
        text.append(cell.verdict, style=f"not bold {STYLES.get(cell.verdict.split(',')[0], 'default')}")
    for more in (cell.tuned, cell.paper):
        if more:
            text.append(f"\n{more}", style="not bold dim")
    return text
