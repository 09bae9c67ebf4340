"""`vitexp reproduce`: which published results there are, and one of them beside our runs."""

from collections.abc import Iterable
from statistics import fmean

from rich.console import Group, RenderableType
from rich.text import Text

from vitexp.report import labels
from vitexp.report.curve_text import place_text
from vitexp.report.tables import footnote, lines
from vitexp.study.known import AGREES, Obtained, expected_of
from vitexp.study.table import Table

_VERDICTS = {
    AGREES: "agrees: the interval holds it",
    "above": "DISAGREES: ours is higher",
    "below": "DISAGREES: ours is lower",
}


def known(rows: Iterable[tuple[str, str, str, str]]) -> RenderableType:
    """A row for each published result."""
    table = lines(("name", "expected", "source", "cost"), rows)
    return Group(table, footnote("vitexp reproduce NAME trains what is missing and compares."))


def compared(table: Table, found: Iterable[Obtained], root: str) -> RenderableType:
    """Expected, obtained, interval and verdict of each value, then source, protocol and cost."""
    study, expected = table.study, expected_of(table.study)
    rows = []
    for one in found:
        mean = "" if one.interval is None else labels.mean(one.interval, expected.metric)
        n = "0" if one.interval is None else str(one.interval.n)
        rows.append([one.arm, f"{100 * one.expected:g}", mean, n, _VERDICTS.get(one.verdict, one.verdict)])
    shown = lines(("arm", "expected, %", "obtained, %: mean ± 95 % interval", "seeds", "verdict"), rows)
    runs = [run for arm in table.arms for run in arm.runs.values()]
    held = {key: [value for run in runs if (value := getattr(run, key))] for key in ("train_seconds", "train_flops")}
    costs = [f"{len(runs)} runs", *(f"{place_text(key, fmean(one))} each" for key, one in held.items() if one)]
    notes = [
        f"Expected: {expected.source}. It has no interval; ours is over seeds and images like those tested.",
        f"Our protocol differs: {expected.differs}.",
        f"Cost: {', '.join(costs)}. Records: {root}/{study.name}.",
    ]
    return Group(Text(study.config.title or study.name, style="bold"), shown, *map(footnote, notes))
