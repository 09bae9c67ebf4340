"""The numbers of a study as rows, for CSV files and for pandas: full precision, nothing rounded.

Accuracies are shares of images (0 to 1), here as in the records. pandas is optional and only loaded by the frames.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from vitexp import stats
from vitexp.study.arm import Arm
from vitexp.study.curve import Curve, Point, make_curve
from vitexp.study.select import Root
from vitexp.study.spec import Study
from vitexp.study.table import Entry, Table, make_table

Row = dict[str, Any]
COSTS = ("train_flops", "parameters", "train_seconds")
_SPREAD = ("mean", "sd", "low", "high")


def table_frame(study: Study, runs: Root, where: Mapping[str, Any] | None) -> Any:
    """What `Study.table` returns."""
    table = make_table(study, runs, where)
    frame = _frame(table_rows(table), table)
    return frame.astype({"pairs": "Int64"})  # whole numbers, absent for the baseline


def curve_frame(study: Study, runs: Root, where: Mapping[str, Any] | None) -> Any:
    """What `Study.curve` returns."""
    curve = make_curve(study, runs, where)
    return _frame(curve_rows(curve), curve)


def table_rows(table: Table) -> list[Row]:
    """One row for each arm and metric, and for each mean over data sets."""
    parts = [entry for part in (table.entries, table.means) for entries in part.values() for entry in entries]
    margin = table.study.config.margin
    return [{"study": table.study.name, **_of_entry(entry), "margin": margin} for entry in parts]


def curve_rows(curve: Curve) -> list[Row]:
    """One row for each metric, line and arm of a curve; against cost with all that the arm cost."""
    return [
        {
            "study": curve.study.name,
            "metric": metric,
            **dict(line.label),
            **(point.arm.factors if curve.against_cost else {}),
            **_tuned(point.arm.tuned),
            **(_costs(curve, point) if curve.against_cost else {"size": point.x}),
            **spread(point.interval),
            **({} if curve.against_cost else {"images_seen": sorted(set(point.images_seen))}),
            "values": point.values,
        }
        for metric, lines in curve.lines.items()
        for line in lines
        for point in line.points
    ]


def _costs(curve: Curve, point: Point) -> Row:
    relative = {} if curve.axis in COSTS else {curve.axis: point.x}
    return {"baseline": point.is_baseline, **{name: fact(point.arm, name) for name in COSTS}, **relative}


def fact(arm: Arm, name: str) -> float | None:
    """What the runs of an arm cost, such as their train_flops; the mean where they differ."""
    held = [value for run in arm.runs.values() if (value := getattr(run, name)) is not None]
    if not held:
        return None
    return held[0] if len(set(held)) == 1 else sum(held) / len(held)


def spread(interval: stats.Interval | None) -> Row:
    """A mean with its seeds, deviation and interval; the values are absent where there is none."""
    if interval is None:
        return {"n": 0, **dict.fromkeys(_SPREAD)}
    return {key: getattr(interval, key) for key in ("n", *_SPREAD)}


def _of_entry(entry: Entry) -> Row:
    judged = entry.judgement
    difference = judged.difference if judged else None
    return {
        **entry.arm.factors,
        **_tuned(entry.arm.tuned),
        "metric": entry.metric,
        "baseline": entry.is_baseline,
        **spread(entry.interval),
        "pairs": difference.n if difference else None,
        "difference": difference.mean if difference else None,
        "difference_sd": difference.sd if difference else None,
        "difference_low": difference.low if difference else None,
        "difference_high": difference.high if difference else None,
        "p": difference.p if difference else None,
        "p_holm": judged.p_holm if judged else None,
        "p_equivalence_holm": judged.p_equivalence if judged else None,
        "detectable": judged.detectable if judged else None,
        "verdict": judged.verdict if judged else f"not compared: {entry.left_out}" if entry.left_out else None,
        "values": entry.values,
    }


def _tuned(values: Mapping[str, Any]) -> Row:
    return {f"tuned {key}": value for key, value in values.items()}


def _frame(rows: Sequence[Row], shown: Table | Curve) -> Any:
    """A pandas frame. Cautions are warned about, since a frame has no place where every reader sees them."""
    try:
        import pandas
    except ImportError as error:
        raise ValueError("tables and curves as frames need pandas: pip install 'vitexp[pandas]'") from error
    for caution in shown.cautions:
        warnings.warn(caution, UserWarning, stacklevel=4)
    frame = pandas.DataFrame(rows)
    frame.attrs = {"cautions": shown.cautions, "notes": shown.notes}
    return frame
