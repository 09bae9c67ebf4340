"""A table as LaTeX for the booktabs package, which is all that it needs."""

from collections.abc import Sequence
from itertools import zip_longest

from vitexp.report.escape import as_latex as escape
from vitexp.report.view import NOTHING, CellView, Section, View


def table(view: View) -> str:
    """The whole table as a float, with its footnotes beneath."""
    sections = [line for section in view.sections for line in (*_section(section), r"\medskip", "")]
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table}[tbp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(view.title)} ({escape(view.setting)}).}}",
            rf"\label{{tab:{_label(view.name)}}}",
            *(rf"\parbox{{\linewidth}}{{\textbf{{{escape(caution)}}}}}\par\medskip" for caution in view.cautions),
            *sections,
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(rf"{escape(note)}\par" for note in view.footnotes),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _label(name: str) -> str:
    return "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name)


def _section(section: Section) -> list[str]:
    header, groups = _grid(section) if section.columns else _list(section)
    gap = "[3pt]" if section.columns else ""
    rows = [(gap if line is group[-1] else "", line) for group in groups for line in group]
    return [
        rf"\begin{{tabular}}{{@{{}}{'l' * len(header)}@{{}}}}",
        r"\toprule",
        rf"\multicolumn{{{len(header)}}}{{@{{}}l}}{{\emph{{{escape(section.title)}}}}} \\",
        r"\midrule",
        _line(header),
        r"\midrule",
        *(_line(line) + space for space, line in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _line(texts: Sequence[str]) -> str:
    return " & ".join(map(escape, texts)) + r" \\"


def _grid(section: Section) -> tuple[list[str], list[list[list[str]]]]:
    """The header, and for each row of the grid the lines that its cells need."""
    groups = []
    for label, row in section.rows:
        stacks = [[label], *([NOTHING] if cell is None else _stack(cell) for cell in row)]
        groups.append([list(line) for line in zip_longest(*stacks, fillvalue="")])
    return [section.corner, *section.columns], groups


def _stack(cell: CellView) -> list[str]:
    first = cell.mean + (" ◆" if cell.baseline else "") + (f" ({cell.count})" if cell.count else "")
    return [line for line in (first, cell.difference, cell.verdict, cell.tuned, cell.paper) if line]


def _list(section: Section) -> tuple[list[str], list[list[list[str]]]]:
    columns = section.listed()
    return list(columns), [[list(row)] for row in zip(*columns.values(), strict=True)]
