"""A table as GitHub-flavoured Markdown."""

from collections.abc import Sequence

from vitexp.report.escape import as_markdown as escape
from vitexp.report.view import CellView, View


def table(view: View) -> str:
    """The whole table with its heading and footnotes."""
    parts = [f"### {escape(view.title)}", escape(view.setting)]
    parts += [f"**{escape(caution)}**" for caution in view.cautions]
    for section in view.sections:
        header, rows = section.as_table(escape, _cell)
        parts += [f"**{escape(section.title)}**", lines_of_table(list(map(escape, header)), rows)]
    parts.append("\n".join(f"- {escape(note)}" for note in view.footnotes))
    return "\n\n".join(parts) + "\n"


def _cell(cell: CellView) -> str:
    first = f"**{escape(cell.mean)}**" + (" ◆" if cell.baseline else "") + (f" ({cell.count})" if cell.count else "")
    others = (f"{cell.difference} {cell.verdict}".strip(), cell.tuned, cell.paper)
    return "<br>".join([first, *(escape(text) for text in others if text)])


def lines_of_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
