"""What other commands have written about a study, in results/STUDY, as parts of the HTML report: any SVG and CSV."""

import csv
import re
from html import unescape
from itertools import groupby, islice
from pathlib import Path

from vitexp.report.style import data_url

_SHOWN_ANYWAY = {"dots", "table", "curve", "curve-fits", "robustness"}
"""What the report shows by itself, by the names of its files; of robustness the numbers."""
_MOST_BYTES, _MOST_ROWS = 1_100_000, 200
"""Of all pictures of a study as they stand in the page, and rows of one table."""
_TITLE = re.compile(r"<title[^>]*>([^<]*)</title>")


def found_pictures(folder: Path) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The pictures of each kind: name, words that stand for it, and address, which is empty where there is no room.

    The last word of a name is its kind, such as rollout in 2d-rollout.svg. Differences of arms have what room is left.
    """
    kinds = {path: path.stem.rpartition("-")[2] for path in _files(folder, ".svg")}
    room, found = _MOST_BYTES, []
    for path in sorted(kinds, key=lambda path: ("-minus-" in path.stem, kinds[path], path)):
        content = path.read_bytes()  # shown as an image, in which no script runs
        url, title, name = data_url(content), _TITLE.search(content.decode(errors="replace")), path.relative_to(folder)
        fits = len(url) <= room
        room -= fits * len(url)
        found.append((kinds[path], (str(name), unescape(title[1]).strip() if title else "", url if fits else "")))
    found.sort(key=lambda one: one[0])
    return [(kind, [one for _, one in some]) for kind, some in groupby(found, key=lambda one: one[0])]


def found_numbers(folder: Path) -> list[tuple[str, list[str], list[list[str]], int]]:
    """Name, header, first rows, and count of all rows of each CSV file that is not the numbers of a picture."""
    found = []
    for path in _files(folder, ".csv"):
        if path.with_suffix(".svg").is_file():
            continue
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lines = csv.reader(file)
            header, *rows = list(islice(lines, _MOST_ROWS + 1)) or [[]]
            count = len(rows) + sum(1 for _ in lines)
        kept = [(row + [""] * len(header))[: len(header)] for row in rows]
        if len(header) > 1:
            found.append((str(path.relative_to(folder)), header, kept, count))
    return found


def _files(folder: Path, kind: str) -> list[Path]:
    paths = sorted(path for path in folder.rglob(f"*{kind}") if path.is_file())
    return [path for path in paths if path.stem not in _SHOWN_ANYWAY or (kind, path.stem) == (".svg", "robustness")]
