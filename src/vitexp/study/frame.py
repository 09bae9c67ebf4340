"""The numbers of a study as rows, for CSV files and for pandas: full precision, nothing rounded.

Accuracies are shares of images (0 to 1), here as in the records. pandas is optional and only loaded by the frames.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from vitexp import stats
from vitexp.study.arm import Arm
from vitexp.study.curve import Curve, Point
from vitexp.study.table import Entry, Table, primary

Row = dict[str, Any]
COSTS = ("train_flops", "parameters", "train_seconds")
_SPREAD = ("n", "mean", "sd", "low", "high")
_JUDGED = {
    "pairs": "n",
    "difference": "mean",
    "difference_sd": "sd",
    "difference_low": "low",
    "difference_high": "high",
    "images": "images",
    "p": "p",
    "p_adjusted": "p_adjusted",
    "p_equivalence": "p_equivalence",
    "detectable": "detectable",
    "verdict": "verdict",
}
"""Columns about the comparison with the baseline, and where a judgement holds them."""


def as_frame(shown: Table | Curve) -> Any:
    """A pandas frame. Cautions are warned about, since a frame has no place where every reader sees them."""
    try:
        import pandas
    except ImportError as error:
        raise ValueError("tables and curves as frames need pandas: pip install 'vitexp[pandas]'") from error
    for caution in shown.cautions:
        warnings.warn(caution, UserWarning, stacklevel=3)
    frame = pandas.DataFrame(table_rows(shown) if isinstance(shown, Table) else curve_rows(shown))
    if isinstance(shown, Table):
        frame = frame.astype({"pairs": "Int64"})  # whole numbers, absent for the baseline
    frame.attrs = {"cautions": shown.cautions, "notes": shown.notes}
    return frame


def table_rows(table: Table) -> list[Row]:
    """One row for each arm and metric, and for each mean over data sets."""
    parts = [entry for part in (table.entries, table.means) for entries in part.values() for entry in entries]
    return [
        {
            "study": table.study.name,
            **entry.arm.factors,
            **_tuned(entry.arm.tuned),
            "metric": entry.metric,
            "baseline": entry.is_baseline,
            **spread(entry.interval),
            **_judged(entry),
            "primary": entry.metric in primary(table.study.config),
            "values": entry.values,
            "margin": table.study.config.margin,
        }
        for entry in parts
    ]


def _judged(entry: Entry) -> Row:
    if entry.judgement:
        low, high = entry.judgement.detectable_range or (None, None)
        found = {column: getattr(entry.judgement, name) for column, name in _JUDGED.items()}
        return found | {"detectable_low": low, "detectable_high": high}
    return dict.fromkeys((*_JUDGED, "detectable_low", "detectable_high")) | {
        "verdict": f"not compared: {entry.left_out}" if entry.left_out else None
    }


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
    return held[0] if len(set(held)) == 1 else sum(held) / len(held) if held else None


def spread(interval: stats.Interval | None) -> Row:
    """A mean with its seeds, deviation and interval; the values are absent where there is none."""
    return {key: getattr(interval, key) for key in _SPREAD} if interval else {**dict.fromkeys(_SPREAD), "n": 0}


def _tuned(values: Mapping[str, Any]) -> Row:
    return {f"tuned {key}": value for key, value in values.items()}
