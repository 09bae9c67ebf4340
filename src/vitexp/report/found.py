"""What other commands have written about a study, in results/STUDY, as parts of the HTML report: any SVG and CSV."""

import csv
import re
from collections.abc import Collection
from html import unescape
from itertools import groupby, islice
from pathlib import Path

from vitexp.report.style import data_url

_SHOWN_ANYWAY = {"dots", "table", "curve", "curve-fits", "robustness"}
"""What the report shows by itself, by the names of its files; of robustness the numbers."""
_MOST_BYTES, _MOST_ROWS = 1_200_000, 200
"""Of all pictures of a study as they stand in the page, and rows of one table."""
_RUNS = re.compile(r"<dc:identifier>([\da-f ]+)</dc:identifier>")
_TITLE = re.compile(r"<title[^>]*>([^<]*)</title>")


def found_pictures(folder: Path, runs: Collection[str]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The pictures of each kind: name, words that stand for it, and address; without one, why it is not taken in.

    A picture that says of which runs it is (by their marks) is taken in where all of them are among `runs`.
    The last word of a name is its kind, such as rollout in 2d-rollout.svg. Differences of arms have what room is left.
    """
    kinds = {path: path.stem.rpartition("-")[2] for path in _files(folder, ".svg")}
    room, found = _MOST_BYTES, []
    for path in sorted(kinds, key=lambda path: ("-minus-" in path.stem, kinds[path], path)):
        content = path.read_bytes()  # shown as an image, in which no script runs
        text, url, name = content.decode(errors="replace"), data_url(content), str(path.relative_to(folder))
        title, marks = _TITLE.search(text), _RUNS.search(text)
        if marks and not set(marks[1].split()) <= set(runs):
            found.append((kinds[path], (name, "it is of other runs than those of this page", "")))
        elif len(url) > room:
            full = f"all pictures of the study would be more than {_MOST_BYTES:,} bytes"
            found.append((kinds[path], (name, full, "")))
        else:
            room -= len(url)
            found.append((kinds[path], (name, unescape(title[1]).strip() if title else "", url)))
    found.sort(key=lambda one: one[0])
    return [(kind, [one for _, one in some]) for kind, some in groupby(found, key=lambda one: one[0])]


def found_numbers(folder: Path) -> list[tuple[str, list[str], list[list[str]], int]]:
    """Name, header, first rows, and count of all rows of each CSV file that is not the numbers of a picture."""
    found = []
    for path in _files(folder, ".csv"):
        if path.with_suffix(".svg").is_file():
            continue
        try:
            with path.open(encoding="utf-8", errors="replace", newline="") as file:
                lines = csv.reader(file)
                header, *rows = list(islice(lines, _MOST_ROWS + 1)) or [[]]
                count = len(rows) + sum(1 for _ in lines)
        except csv.Error:  # no table
            continue
        kept = [(row + [""] * len(header))[: len(header)] for row in rows]
        if len(header) > 1:
            found.append((str(path.relative_to(folder)), header, kept, count))
    return found


def _files(folder: Path, kind: str) -> list[Path]:
    paths = sorted(path for path in folder.rglob(f"*{kind}") if path.is_file())
    return [path for path in paths if path.stem not in _SHOWN_ANYWAY or (kind, path.stem) == (".svg", "robustness")]
