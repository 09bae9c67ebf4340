"""Numbers as CSV, and as what `--json` prints (docs/json.md): in full precision, and nothing in words alone."""

from typing import Any

from vitexp.report import labels
from vitexp.report.markup import csv_table
from vitexp.report.paper import published
from vitexp.report.view import paper_figure
from vitexp.study.curve import Curve
from vitexp.study.fits import Crossover, EqualAccuracy, PowerLaw
from vitexp.study.frame import Row, curve_rows, table_rows
from vitexp.study.select import Selection
from vitexp.study.table import Table, primary


def table(table: Table) -> str:
    """The whole table of a study."""
    config = table.study.config
    paper = published(config.paper) if config.paper else None
    entries = [entry for part in (table.entries, table.means) for entries in part.values() for entry in entries]
    lines = []
    for entry, row in zip(entries, table_rows(table), strict=True):
        figure = paper_figure(entry.arm, entry.metric, paper)
        base = None if entry.baseline is None else paper_figure(entry.baseline, entry.metric, paper)
        beside = {
            "paper": figure,
            "paper_difference": None if figure is None or base is None else figure - base,
            "paper_source": paper.source if paper and figure is not None else None,
        }
        lines.append(row | beside | {"notes": notes(table)})
    return csv_table(lines)


def points(curve: Curve) -> str:
    """The points of a curve: one line per metric, line and arm."""
    rows = curve_rows(curve)
    for row in rows:
        row |= {"images_seen": " ".join(map(str, row["images_seen"]))} if "images_seen" in row else {}
    return csv_table([row | {"notes": notes(curve)} for row in rows])


def fits(curve: Curve) -> str:
    """What is read off a curve: power laws and crossovers, or the factors of cost at equal accuracy."""
    rows: list[Row] = []
    for metric, lines in curve.lines.items():
        first = {"kind": "power law", "metric": metric}
        rows += [{**first, **dict(line.label), **_of_fit(line.fit)} for line in lines if not curve.against_cost]
        for line, base, found in curve.compared[metric]:
            kind = "crossover" if isinstance(found, Crossover) else "equal accuracy"
            against = " ".join(str(value) for _, value in base.label)
            read = {**vars(found), "shown": found.shown} if isinstance(found, Crossover) else _of_equal(found, curve)
            rows.append({"kind": kind, "metric": metric, **dict(line.label), "against": against, **read})
    return csv_table([row | {"notes": notes(curve)} for row in rows]) if rows else "kind\n"


def _of_equal(found: EqualAccuracy, curve: Curve) -> Row:
    """The factor of cost between two lines at equal accuracy."""
    low, high = found.interval or (None, None)
    accuracy_low, accuracy_high = found.accuracies or (None, None)
    return {
        "cost": curve.axis,
        "factor": found.factor,
        "low": low,
        "high": high,
        "seeds": len(found.log_factors),
        "seeds_without": len(found.apart),
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "log_factors": found.log_factors,
    }


def _of_fit(fit: PowerLaw | str) -> Row:
    if isinstance(fit, str):
        return {"absent": fit}
    bounds = dict(zip(("b_low", "b_high", "c_low", "c_high"), (*fit.b_interval, *fit.c_interval), strict=True))
    return {"a": fit.a, "b": fit.b, "c": fit.c, **bounds, "miss": fit.miss, "outside": fit.outside, "seeds": fit.seeds}


def notes(shown: Table | Curve | Selection) -> str:
    """Everything that the reader of any number of a table or curve must know, cautions first."""
    return " ".join((*labels.cautions(shown.cautions), *map(labels.sentence, shown.notes)))


def table_document(table: Table) -> dict[str, Any]:
    """The rows of a study's CSV, and what a reader must know of them."""
    config = table.study.config
    return {
        "schema": "vitexp.table/1",
        "study": table.study.name,
        "images": config.images,
        "primary": primary(config),
        "margin": config.margin,
        "comparisons": table.comparisons,
        "looks": list(table.looks.after) if table.looks else None,
        "cautions": table.cautions,
        "notes": table.notes,
        "rows": table_rows(table),
    }


def curve_document(curve: Curve, readings: list[str]) -> dict[str, Any]:
    """The points of a curve, and what is read off them in words."""
    return {
        "schema": "vitexp.curve/1",
        "study": curve.study.name,
        "axis": curve.axis,
        "cautions": curve.cautions,
        "notes": curve.notes,
        "readings": readings,
        "rows": curve_rows(curve),
    }
