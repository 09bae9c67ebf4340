"""A table as LaTeX for the booktabs package, which is all that it needs."""

import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

from vitexp.report.view import NOTHING, CellView, Section, View

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "−": r"$-$", "–": "--", "—": "---",
    "◆": r"$\diamond$", "·": r"$\cdot$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$",
    "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip
_LAST_LATIN = "\u017f"
"""LaTeX reads letters up to here without a package."""


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


def escape(text: str) -> str:
    """Any text as LaTeX that prints it; a sign that plain LaTeX lacks becomes ASCII, or a question mark."""
    return "".join(_SPECIAL.get(sign) or _letter(sign) for sign in text)


def _letter(sign: str) -> str:
    if sign <= _LAST_LATIN:
        return sign
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


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
