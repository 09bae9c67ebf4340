"""What other commands have written about a study, in results/STUDY, as parts of the HTML report: any SVG and CSV."""

import base64
import csv
import re
from html import unescape
from itertools import islice
from pathlib import Path

from vitexp.report.markup import as_html as escape
from vitexp.report.markup import html_table

_SHOWN_ANYWAY = {"dots.svg", "table.csv", "curve.svg", "curve.csv"}
_MOST_BYTES, _MOST_ROWS = 300_000, 200
_TITLE = re.compile(r"<title[^>]*>([^<]*)</title>")


def found_files(results: Path, name: str) -> str:
    """The pictures and numbers in results/NAME that the report does not show by itself; empty where there is none."""
    paths = sorted(path for path in (results / name).rglob("*") if path.suffix in (".svg", ".csv") and path.is_file())
    parts = [_part(path, results) for path in paths if path.name not in _SHOWN_ANYWAY]
    return f"<h3>Pictures and numbers of other commands</h3>{''.join(parts)}" if parts else ""


def _part(path: Path, results: Path) -> str:
    name = escape(str(path.relative_to(results)))
    if path.stat().st_size > _MOST_BYTES:
        return f'<p class="faint">{name} is larger than {_MOST_BYTES // 1000} kB, and not taken in.</p>'
    return _picture(path, name) if path.suffix == ".svg" else _numbers(path, name)


def _picture(path: Path, name: str) -> str:
    """As an image, in which no script runs; its own title is what stands for it."""
    content = path.read_bytes()
    title = _TITLE.search(content.decode(errors="replace"))
    said = escape(unescape(title[1])) if title and title[1].strip() else name
    data = base64.b64encode(content).decode()
    return f'<figure><figcaption>{name}</figcaption><img alt="{said}" src="data:image/svg+xml;base64,{data}"></figure>'


def _numbers(path: Path, name: str) -> str:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        header, *rows = [list(map(escape, row)) for row in islice(csv.reader(file), _MOST_ROWS + 1)] or [[]]
        rest = sum(1 for _ in file)
    more = f" (the first {_MOST_ROWS} rows of {_MOST_ROWS + rest})" if rest else ""
    width = len(header)
    kept = [(row + [""] * width)[:width] for row in rows]
    table = html_table(list(header), kept, "rows", path.name) if width > 1 else ""
    return f"<details><summary>{name}{more}</summary>{table}</details>" if table else ""
