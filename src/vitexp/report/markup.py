"""Text and tables as HTML, Markdown, LaTeX and CSV: names from files and records are printed as they are there, and
nothing in them acts."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from vitexp.report.view import CellView, Section, View

# Controls of a terminal, line ends within a name, and the signs that turn the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"\s*[=+\-@]")
_MARKDOWN = str.maketrans({s: f"\\{s}" for s in "\\`*_|[]#~$"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "−": r"$-$", "–": "--", "—": "---",
    "◆": r"$\diamond$", "·": r"$\cdot$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$",
    "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip
_CAPTION = (
    "Means with 95 % intervals; beneath each mean the difference to the baseline (◆), paired by seed, with its "
    "simultaneous 95 % interval."
)
_LAST_LATIN = "\u017f"
"""LaTeX reads letters up to here without a package."""


def visible(text: str) -> str:
    """A text in one line whose control characters can be seen: blanks for line ends and tabs, \ufffd for the others."""
    return _UNSEEN.sub(lambda found: " " if found[0].isspace() else "\ufffd", text)


def as_html(template: str, *texts: str) -> Markup:
    """Markup with texts where it has {}; they stay text, in an element and in a quoted attribute."""
    return Markup(template).format(*(text if isinstance(text, Markup) else visible(text) for text in texts))


def as_markdown(text: str) -> str:
    """Text as GitHub-flavoured Markdown, in a paragraph or in a cell of a table."""
    return visible(text).translate(_MARKDOWN)


def as_latex(text: str) -> str:
    """Text as LaTeX that prints it; a sign that plain LaTeX lacks becomes ASCII, or a question mark."""
    return "".join(map(_latex_sign, visible(text)))


def _latex_sign(sign: str) -> str:
    if sign in _LATEX or sign <= _LAST_LATIN:
        return _LATEX.get(sign, sign)
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def as_csv(value: Any) -> Any:
    """A value of a CSV file: text that a spreadsheet would run as a formula gets an apostrophe; numbers stay.

    Values by seed become `0:0.951 1:0.944`.
    """
    if isinstance(value, Mapping):
        return " ".join(f"{seed}:{one!r}" for seed, one in sorted(value.items()))
    if not isinstance(value, str):
        return value
    text = visible(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if _FORMULA.match(text) else text
    return text


def csv_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """CSV with one column for each key of any line; what is absent stays empty."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(as_csv, names))
    writer.writerows([as_csv(line.get(name, "")) for name in names] for line in lines)
    return file.getvalue()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def markdown_page(
    title: str, lead: str, cautions: Iterable[str], parts: Iterable[tuple[str, str]], notes: Iterable[str]
) -> str:
    """A page of texts; `parts` are headings and tables that are Markdown already."""
    above = [f"### {as_markdown(title)}", as_markdown(lead), *(f"**{as_markdown(text)}**" for text in cautions)]
    below = "\n".join(f"- {as_markdown(note)}" for note in notes)
    return "\n\n".join([*above, *(text for part in parts for text in part), below]) + "\n"


def study_as_markdown(view: View) -> str:
    """A study's table with its heading and footnotes."""
    parts = []
    for section in view.sections:
        header, rows = section.as_table(as_markdown, _markdown_cell)
        parts.append((f"**{as_markdown(section.title)}**", markdown_table(list(map(as_markdown, header)), rows)))
    return markdown_page(view.title, view.setting, view.cautions, parts, view.footnotes)


def _markdown_cell(cell: CellView) -> str:
    count = f" ({cell.count})" if cell.count else ""
    first = f"{as_markdown(cell.mean)}{' ◆' * cell.baseline}{count}"
    others = (f"{cell.difference} {cell.verdict}".strip(), cell.tuned, cell.paper)
    return "<br>".join([first, *(as_markdown(text) for text in others if text)])


def study_as_latex(view: View) -> str:
    """A study's table as a float for the booktabs package, which is all that it needs, with its footnotes beneath."""
    label = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in view.name)
    cautions = map(as_latex, view.cautions)
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table}[tbp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{as_latex(view.title)}. {as_latex(_CAPTION)}}}",
            rf"\label{{tab:{label}}}",
            *(rf"\parbox{{\linewidth}}{{\textbf{{{text}}}}}\par\medskip" for text in cautions),
            *(line for section in view.sections for line in _tabular(section)),
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(rf"{as_latex(note)}\par" for note in (f"{view.setting}.", *view.footnotes)),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _tabular(section: Section) -> list[str]:
    header, rows = section.as_table(lambda text: [text], _lines_of_cell)
    lines = []
    for row in rows:
        lines += [_latex_line(line) for line in zip_longest(*row, fillvalue="")]
        lines[-1] += "[3pt]" if section.columns else ""
    return [
        rf"\begin{{tabular}}{{@{{}}{'l' * len(header)}@{{}}}}",
        r"\toprule",
        rf"\multicolumn{{{len(header)}}}{{@{{}}l}}{{\emph{{{as_latex(section.title)}}}}} \\",
        r"\midrule",
        _latex_line(header),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        r"\medskip",
        "",
    ]


def _latex_line(texts: Iterable[str]) -> str:
    return " & ".join(map(as_latex, texts)) + r" \\"


def _lines_of_cell(cell: CellView) -> list[str]:
    first = cell.mean + (" ◆" if cell.baseline else "") + (f" ({cell.count})" if cell.count else "")
    return [line for line in (first, cell.difference, cell.verdict, cell.tuned, cell.paper) if line]
