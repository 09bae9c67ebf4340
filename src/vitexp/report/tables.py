"""`vitexp table`: the table of a study on the terminal, and as Markdown, CSV and LaTeX beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.record import write_atomically
from vitexp.report import latex, markdown, tidy
from vitexp.report.view import NOTHING, CellView, Section, View, make_view
from vitexp.study.spec import read_study
from vitexp.study.table import make_table

STYLES = {"worse": "red", "better": "green", "equivalent": "cyan"}


@dataclass(frozen=True)
class Written:
    """What a command made: something to print, and the files it wrote."""

    renderable: RenderableType
    paths: tuple[Path, ...]


def write_table(
    sweep: str | Path,
    runs: str | Path = "runs",
    results: str | Path = "results",
    where: Mapping[str, Any] | None = None,
) -> Written:
    """The table of the study in `sweep`, from the records below `runs`; writes results/NAME/table.{md,csv,tex}.

    Raises: ValueError when the study file is not sound, or the records do not make a table.
    """
    table = make_table(read_study(sweep), runs, where)
    view = make_view(table)
    folder = Path(results) / view.name
    contents = {"table.md": markdown.table(view), "table.csv": tidy.table(table), "table.tex": latex.table(view)}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return Written(terminal(view), tuple(folder / name for name in contents))


def print_written(written: Written, console: Console | None = None) -> None:
    """Shows a result and where it lies. Without a terminal the lines are 110 characters wide."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=110, highlight=False)
    console.print(written.renderable)
    console.print(Text("Written: " + ", ".join(str(path) for path in written.paths), style="dim"))


def terminal(view: View) -> RenderableType:
    """The table for a terminal of 100 columns or more."""
    parts: list[RenderableType] = [Text(view.title, style="bold"), Text(view.setting, style="dim")]
    for section in view.sections:
        parts += [
            Text(),
            Text(section.title, style="bold"),
            _grid(view, section) if section.columns else _list(section),
        ]
    return Group(*parts, *(footnote(note) for note in view.footnotes), Text())


def _grid(view: View, section: Section) -> RichTable:
    table = RichTable(box=box.HORIZONTALS, show_lines=True, pad_edge=False, header_style="")
    table.add_column(view.corner, style="bold", overflow="fold", max_width=20)
    for column in section.columns:
        table.add_column(column, min_width=24)
    for label, row in section.rows:
        table.add_row(label, *(Text(NOTHING, style="dim") if cell is None else _cell(cell) for cell in row))
    return table


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


def _cell(cell: CellView) -> Text:
    text = Text(cell.mean, style="bold")
    if cell.baseline:
        text.append("  ◆ baseline", style="not bold")
    if cell.count:
        text.append(f"  {cell.count}", style="not bold dim")
    if cell.difference:
        text.append(f"\n{cell.difference}  ", style="not bold")
        text.append(cell.verdict, style=f"not bold {_style(cell.verdict)}")
    for more in (cell.tuned, cell.paper):
        if more:
            text.append(f"\n{more}", style="not bold dim")
    return text


def _style(verdict: str) -> str:
    return STYLES.get(verdict.split(",")[0], "default")


def footnote(note: str) -> RenderableType:
    """One sentence below a table, with its point at the left."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row("·", Text(note))
    return grid
