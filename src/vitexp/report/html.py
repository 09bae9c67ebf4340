"""One offline page about one study or several: tables, pictures, claims, and behind every number its runs.

Template, style and script lie in `page/`; the page allows this script alone, by its hash, and nothing from outside.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitexp.metrics import change
from vitexp.record import check_folder, run_mark, write_atomically
from vitexp.report import claims_text, labels, plot, style
from vitexp.report.behind import key_of, panels
from vitexp.report.curve_text import readings
from vitexp.report.draw_curve import draw_curve
from vitexp.report.found import found_numbers, found_pictures
from vitexp.report.markup import as_html, visible
from vitexp.report.robustness import robust_table, robust_view
from vitexp.report.tables import Sweep, Where
from vitexp.report.view import CellView, Section, make_view
from vitexp.study.claims.claims import CLAIMS
from vitexp.study.claims.verdicts import ClaimsReport, ClaimVerdict, judge_claims
from vitexp.study.curve import has_curve, make_curve
from vitexp.study.select import Root, Runs, select
from vitexp.study.spec import as_study
from vitexp.study.table import Table, make_table

NAME = "report.html"


def write_html(
    studies: Sequence[tuple[Sweep, Root]], out: str | Path = "report", results: str | Path = "results",
    where: Where = None, left_out: list[str] | None = None,
) -> Path:  # fmt: skip
    """The report of studies, each with the place of its runs, as out/report.html.

    What other commands have written to results/STUDY is taken in: pictures (SVG), numbers (CSV), and the table of
    `vitexp robustness`. Studies found in a folder (Study.path) that make no table yet go to `left_out`
    with the reason, which the page says.
    Raises: ValueError when a study file is not sound, its records do not make a table, or nothing can be written to
    `out`.
    """
    path = Path(out) / NAME
    check_folder(path.parent)
    tables, left_out = list[tuple[Table, Root]](), [] if left_out is None else left_out
    for sweep, runs in studies:
        study = as_study(sweep)
        try:
            tables.append((make_table(study, runs, where), runs))
        except ValueError as error:
            if study.path.is_file() or not studies[1:]:  # it was asked for by name
                raise
            left_out.append(str(error))
    if not tables:
        raise ValueError(left_out[0])
    sections = [_study(f"s{i}", *found, Path(results), where) for i, found in enumerate(tables, start=1)]
    environment = Environment(
        loader=PackageLoader("vitexp.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )  # fmt: skip
    sources = {kind: (files("vitexp.report") / f"page/page.{kind}").read_text() for kind in ("css", "js")}
    digest = base64.b64encode(hashlib.sha256(sources["js"].encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        title=f"Report on {len(sections)} studies" if sections[1:] else sections[0]["view"].title, studies=sections,
        left_out=left_out, style=Markup(sources["css"]), script=Markup(sources["js"]), digest=f"sha256-{digest}",
        said=claims_text, CLAIMS=CLAIMS,
    )  # fmt: skip
    write_atomically(path, page)
    return path


def _study(identity: str, table: Table, runs: Root, results: Path, where: Where) -> dict[str, Any]:
    """What the template shows of a study; ids in it begin with `identity`."""
    view, folder = make_view(table), results / table.study.name
    ids = {key_of(arm): f"{identity}-{i}" for i, arm in enumerate(table.arms, start=1)}
    robust = []
    held = [run for arm in table.arms for run in arm.runs.values()]
    tested = any(change(name) for run in held for name in run.metrics)
    if tested and (folder / "robustness.csv").is_file() and not isinstance(runs, Runs):
        words = robust_view(robust_table(table.study, Path(runs), where))
        robust = [(_tables(words.sections, ids), words.footnotes)]
    shown, facts = panels(table, ids, "runs" if isinstance(runs, Runs) else str(runs))
    return {
        "id": identity,
        "view": view,
        "tables": _tables(view.sections, ids),
        "dots": [plot.dots(table, metric) for metric in table.entries],
        "curves": _curves(table, runs, where),
        "claims": _claims(table, runs, where),
        "robust": robust,
        "pictures": found_pictures(folder, [*map(run_mark, held)]),
        "numbers": found_numbers(folder),
        "facts": facts,
        "panels": shown,
    }


def _tables(sections: Sequence[Section], ids: dict[str, str]) -> list[tuple[Any, ...]]:
    """Header, rows, kind and caption of grids and lists of arms, whose means open what is behind them."""

    def shown(cell: CellView, alone: bool = False) -> tuple[CellView, list[str]]:
        arms = [] if cell.entry is None else [cell.entry.arm, *getattr(cell.entry.arm, "members", ())]
        opened = [ids[key] for key in map(key_of, arms) if key in ids]
        return CellView(mean=cell.mean) if alone else cell, opened

    found = []
    for section in sections:
        header, rows = section.as_table(lambda text: text, shown)
        if not section.columns:
            cells = [cell for _, (cell, *_) in section.rows if cell is not None]
            for row, cell in zip(rows, cells, strict=True):
                row[header.index("mean")] = shown(cell, alone=True)
        found.append((header, rows, "" if section.columns else "rows", section.title))
    return found


def _curves(table: Table, runs: Root, where: Where) -> Iterator[tuple[str, Markup, list[str]]]:
    """Title, picture and readings of the curve of a study that has one."""
    if has_curve(table.study):
        curve = make_curve(table.study, runs, where)
        title = f"Against {labels.key_label(curve.axis)}"
        with style.settings():
            url = style.data_url(style.svg(draw_curve(curve)))
        yield title, as_html('<img class="drawn" alt="{}" src="{}">', title, url), readings(curve)


def _claims(table: Table, runs: Root, where: Where) -> tuple[ClaimsReport, dict[str, list[list[ClaimVerdict]]]]:
    """The claims that the finished runs test, and the lines of each; those without a contrast by their reason."""
    selection = select(table.study, runs, where)
    records = tuple(run for arm in selection.arms for run in arm.runs.values())
    kept = Runs(location=selection.location, records=records)  # the place itself has the looks of a planned study
    report = judge_claims(read=[(table.study, kept if where else runs)])
    lines: dict[str, dict[Any, list[ClaimVerdict]]] = {claim.name: {} for claim in CLAIMS if report.of(claim)}
    for found in report.verdicts:
        alike = id(found) if found.judged else (found.verdict, claims_text.why(found))
        lines[found.claim.name].setdefault(alike, []).append(found)
    return report, {name: list(groups.values()) for name, groups in lines.items()}
