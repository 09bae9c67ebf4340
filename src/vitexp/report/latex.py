"""A table as LaTeX for the booktabs package, which is all that it needs."""

from collections.abc import Sequence
from itertools import zip_longest

from vitexp.report.escape import as_latex as escape
from vitexp.report.view import CellView, Section, View


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
    header, stacks = section.as_table(lambda text: [text], _stack)
    groups = [[list(line) for line in zip_longest(*row, fillvalue="")] for row in stacks]
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


def _stack(cell: CellView) -> list[str]:
    """The lines of a cell, below each other."""
    first = cell.mean + (" ◆" if cell.baseline else "") + (f" ({cell.count})" if cell.count else "")
    return [line for line in (first, cell.difference, cell.verdict, cell.tuned, cell.paper) if line]
