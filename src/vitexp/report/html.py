"""One offline page about one study or several: tables, pictures, claims, and behind every number its runs.

Style and script lie in `page/` as they are; the page allows this script alone, by its hash, and nothing from outside.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from vitexp.record import write_atomically
from vitexp.report import labels
from vitexp.report.html_study import study_section
from vitexp.report.markup import as_html as escape
from vitexp.report.tables import Sweep, Where
from vitexp.study.select import Root
from vitexp.study.spec import as_study
from vitexp.study.table import make_table

NAME = "report.html"
_SEVERAL = "Report on {} studies"


def write_html(
    studies: Sequence[tuple[Sweep, Root]], out: str | Path = "report", results: str | Path = "results",
    where: Where = None,
) -> Path:  # fmt: skip
    """The report of studies, each with the place of its runs, as out/report.html.

    Pictures (SVG) and numbers (CSV) in results/STUDY, which other commands have written, are taken in.
    Raises: ValueError when a study file is not sound, its records do not make a table, or nothing can be written to
    `out`.
    """
    path = _writable(Path(out)) / NAME
    tables = [(make_table(as_study(sweep), runs, where), runs) for sweep, runs in studies]
    titles = [labels.title(table.study) for table, _ in tables]
    sections = [
        study_section(f"s{i}", table, runs, Path(results), where) for i, (table, runs) in enumerate(tables, start=1)
    ]
    links = "".join(f'<li><a href="#s{i}">{escape(title)}</a></li>' for i, title in enumerate(titles, start=1))
    page, style, script = ((files("vitexp.report") / f"page/page.{kind}").read_text() for kind in ("html", "css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = Template(page).substitute(
        title=escape(_SEVERAL.format(len(titles)) if titles[1:] else titles[0]),
        contents=f'<nav aria-label="Studies"><ul>{links}</ul></nav>' if titles[1:] else "",
        body="\n".join(sections), style=style, script=script, script_hash=f"sha256-{digest}",
    )  # fmt: skip
    write_atomically(path, text)
    return path


def _writable(folder: Path) -> Path:
    """Raises: ValueError for a folder in which no file can be made; found out before any record is read."""
    probe = folder / f".{NAME}.try"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written to ({error.strerror}); name another folder") from error
    return folder
