"""Numbers as CSV: one line per arm and metric, in full precision, nothing rounded and nothing in words alone."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from vitexp.report import words
from vitexp.report.escape import as_csv
from vitexp.report.paper import published
from vitexp.report.view import paper_figure
from vitexp.study.curve import Curve
from vitexp.study.fits import Crossover, EqualAccuracy, PowerLaw
from vitexp.study.frame import curve_rows, table_rows
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
        lines.append(row | {"values": by_seed(entry.values)} | beside | {"notes": notes(table)})
    return write(lines)


def points(curve: Curve) -> str:
    """The points of a curve: one line per metric, line and arm."""
    texts = {"images_seen": lambda steps: " ".join(map(str, steps)), "values": by_seed}
    rows = [row | {name: text(row[name]) for name, text in texts.items() if name in row} for row in curve_rows(curve)]
    return write([row | {"notes": notes(curve)} for row in rows])


def fits(curve: Curve) -> str:
    """What is read off a curve: power laws and crossovers, or the factors of cost at equal accuracy."""
    rows: list[dict[str, Any]] = []
    for metric, lines in curve.lines.items():
        first = {"kind": "power law", "metric": metric}
        rows += [{**first, **dict(line.label), **_of_fit(line.fit)} for line in lines if not curve.against_cost]
        for line, base, found in curve.compared[metric]:
            kind = "crossover" if isinstance(found, Crossover) else "equal accuracy"
            against = " ".join(str(value) for _, value in base.label)
            read = (
                {**vars(found), "shown": found.shown} if isinstance(found, Crossover) else _of_equal(found, curve.axis)
            )
            rows.append({"kind": kind, "metric": metric, **dict(line.label), "against": against, **read})
    return write([{**row, "notes": notes(curve)} for row in rows]) if rows else "kind\n"


def _of_equal(found: EqualAccuracy, cost: str) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    accuracy_low, accuracy_high = found.accuracies or (None, None)
    return {
        "cost": cost,
        "factor": found.factor,
        "low": low,
        "high": high,
        "seeds": len(found.log_factors),
        "seeds_without": len(found.apart),
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "log_factors": by_seed(found.log_factors),
    }


def notes(shown: Table | Curve) -> str:
    """Everything that the reader of any number of a table or curve must know, cautions first."""
    return " ".join((*words.cautions(shown.cautions), *map(words.sentence, shown.notes)))


def _of_fit(fit: PowerLaw | str) -> dict[str, Any]:
    if isinstance(fit, str):
        return {"absent": fit}
    (b_low, b_high), (c_low, c_high) = fit.b_interval, fit.c_interval
    bounds = {"b_low": b_low, "b_high": b_high, "c_low": c_low, "c_high": c_high}
    return {"a": fit.a, "b": fit.b, "c": fit.c, **bounds, "miss": fit.miss, "outside": fit.outside, "seeds": fit.seeds}


def write(lines: Sequence[Mapping[str, Any]]) -> str:
    """CSV with one column for each key of any line; what is absent stays empty."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(as_csv, names))
    writer.writerows([as_csv(line.get(name, "")) for name in names] for line in lines)
    return file.getvalue()


def by_seed(values: Mapping[int, float]) -> str:
    """The single values behind a mean: `0:0.951 1:0.944`."""
    return " ".join(f"{seed}:{value!r}" for seed, value in sorted(values.items()))
