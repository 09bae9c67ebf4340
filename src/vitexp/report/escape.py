"""Names from files and records as text that a form of output prints as it is, and that nothing there acts on."""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Controls of a terminal, line ends within a name, and the signs that turn the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"\s*[=+\-@]")
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*_|[]#~$"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "−": r"$-$", "–": "--", "—": "---",
    "◆": r"$\diamond$", "·": r"$\cdot$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$",
    "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip
_LAST_LATIN = "\u017f"
"""LaTeX reads letters up to here without a package."""


def visible(text: str) -> str:
    """A text in one line whose control characters can be seen: blanks for line ends and tabs, \ufffd for the others."""
    return _UNSEEN.sub(lambda found: " " if found[0].isspace() else "\ufffd", text)


def as_html(text: str) -> str:
    """Text as HTML, in an element or in a quoted attribute."""
    return html.escape(visible(text))


def as_markdown(text: str) -> str:
    """Text as GitHub-flavoured Markdown, in a paragraph or in a cell of a table."""
    return "".join(_MARKDOWN.get(sign, sign) for sign in visible(text))


def as_latex(text: str) -> str:
    """Text as LaTeX that prints it; a sign that plain LaTeX lacks becomes ASCII, or a question mark."""
    return "".join(_LATEX.get(sign) or _letter(sign) for sign in visible(text))


def as_csv(value: Any) -> Any:
    """A value of a CSV file: text that a spreadsheet would run as a formula gets an apostrophe; numbers stay."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


@dataclass(frozen=True)
class Visible:
    """What is printed on a terminal, with the control characters in its texts made visible."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.inner, options):
            lines = "\n".join(map(visible, segment.text.split("\n")))  # a text that was wrapped holds its line ends
            yield segment if segment.control else Segment(lines, segment.style)


def _letter(sign: str) -> str:
    if sign <= _LAST_LATIN:
        return sign
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
