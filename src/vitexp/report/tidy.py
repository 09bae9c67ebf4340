"""Numbers as CSV: one line per arm and metric, in full precision, nothing rounded and nothing in words alone."""

from vitexp.report import words
from vitexp.report.markup import csv_table
from vitexp.report.paper import published
from vitexp.report.view import paper_figure
from vitexp.study.cost_curve import CostCurve
from vitexp.study.curve import Curve
from vitexp.study.frame import Row, cost_rows, curve_rows, table_rows
from vitexp.study.powerlaw import PowerLaw
from vitexp.study.select import Selection
from vitexp.study.table import Table


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


def points(curve: Curve | CostCurve) -> str:
    """The points of a curve: one line per metric, arm and data size, or per metric, line and arm."""
    rows = cost_rows(curve) if isinstance(curve, CostCurve) else curve_rows(curve)
    for row in rows:
        row |= {"images_seen": " ".join(map(str, row["images_seen"]))} if "images_seen" in row else {}
    return csv_table([row | {"notes": notes(curve)} for row in rows])


def fits(curve: Curve | CostCurve) -> str:
    """What is read off a curve: power laws and crossovers, or the factors of cost at equal accuracy."""
    lines = _cost_fits(curve) if isinstance(curve, CostCurve) else _size_fits(curve)
    return csv_table([line | {"notes": notes(curve)} for line in lines]) if lines else "kind\n"


def _size_fits(curve: Curve) -> list[Row]:
    lines: list[Row] = []
    for metric, series in curve.series.items():
        for one, fit in zip(series, curve.fits[metric], strict=True):
            lines.append({"kind": "power law", "metric": metric, **dict(one.label), **_of_fit(fit)})
        for one, base, crossover in curve.crossovers[metric]:
            against = " ".join(map(str, dict(base.label).values()))
            found = {"against": against, **vars(crossover), "shown": crossover.shown}
            lines.append({"kind": "crossover", "metric": metric, **dict(one.label), **found})
    return lines


def _of_fit(fit: PowerLaw | str) -> Row:
    if isinstance(fit, str):
        return {"absent": fit}
    bounds = dict(zip(("b_low", "b_high", "c_low", "c_high"), (*fit.b_interval, *fit.c_interval), strict=True))
    return {"a": fit.a, "b": fit.b, "c": fit.c, **bounds, "miss": fit.miss, "outside": fit.outside, "seeds": fit.seeds}


def _cost_fits(curve: CostCurve) -> list[Row]:
    """The factor of cost between two lines at equal accuracy."""
    found: list[Row] = []
    for metric, compared in curve.equal.items():
        for line, base, equal in compared:
            low, high = equal.interval or (None, None)
            accuracy_low, accuracy_high = equal.accuracies or (None, None)
            row: Row = {"kind": "equal accuracy", "metric": metric, "line": line.name, "against": base.name}
            row |= {"cost": curve.x, "factor": equal.factor, "low": low, "high": high}
            row |= {"seeds": len(equal.log_factors), "seeds_without": len(equal.apart)}
            row |= {"accuracy_low": accuracy_low, "accuracy_high": accuracy_high}
            found.append(row | {"log_factors": equal.log_factors})
    return found


def notes(shown: Table | Curve | CostCurve | Selection) -> str:
    """Everything that the reader of any number of a table or curve must know, cautions first."""
    return " ".join((*words.cautions(shown.cautions), *map(words.sentence, shown.notes)))
