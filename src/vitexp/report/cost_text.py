"""A curve against cost on the terminal and as CSV: every point with what it cost, and what was read off the lines."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.report import cost_words as say
from vitexp.report import tidy, words
from vitexp.report.footnotes import paper_words
from vitexp.report.paper import published
from vitexp.report.terminal import caution, footnote
from vitexp.study.arm import Arm
from vitexp.study.cost_curve import CostCurve, Line, Point

FACTS = ("train_flops", "parameters", "train_seconds")


def cost_text(curve: CostCurve) -> RenderableType:
    """Points and comparisons of every metric."""
    parts: list[RenderableType] = [
        Text(curve.study.config.title or f"Study {curve.study.name}", style="bold"),
        Text(say.budget(curve), style="dim"),
        *map(caution, words.cautions(curve.cautions)),
    ]
    for metric, lines in curve.lines.items():
        counts = [len(point.values) for line in lines for point in line.points]
        parts += [Text(), Text(words.headline(metric, counts), style="bold"), _table(curve, metric)]
        parts += [footnote(sentence) for sentence in say.sentences(curve, metric)]
    if any(point.is_baseline for point in curve.points):
        parts.append(footnote("◆ is the baseline."))
    if curve.study.config.paper:
        parts.append(footnote(paper_words(published(curve.study.config.paper))))
    return Group(*parts, *(footnote(words.sentence(note)) for note in curve.notes), Text())


def points_csv(curve: CostCurve) -> str:
    """One line per metric, line and arm, in full precision; an arm on several lines stands in each."""
    return tidy.write(
        [
            {
                "study": curve.study.name,
                "metric": metric,
                "line": line.name,
                **point.arm.factors,
                **{f"tuned {key}": value for key, value in point.arm.tuned.items()},
                "baseline": point.is_baseline,
                **{name: fact(point.arm, name) for name in FACTS},
                **({} if curve.x in FACTS else {curve.x: point.cost}),
                **tidy.spread(point.interval),
                "values": tidy.by_seed(point.values),
                "notes": tidy.notes(curve),
            }
            for metric, lines in curve.lines.items()
            for line in lines
            for point in line.points
        ]
    )


def equal_csv(curve: CostCurve) -> str:
    """What is read off a curve: the factor of cost between two lines at equal accuracy."""
    found: list[dict[str, Any]] = []
    for metric, compared in curve.equal.items():
        for line, base, equal in compared:
            low, high = equal.interval or (None, None)
            accuracy_low, accuracy_high = equal.accuracies or (None, None)
            found.append(
                {
                    "kind": "equal accuracy",
                    "metric": metric,
                    "line": line.name,
                    "against": base.name,
                    "cost": curve.x,
                    "factor": equal.factor,
                    "low": low,
                    "high": high,
                    "seeds": len(equal.log_factors),
                    "seeds_without": len(equal.apart),
                    "accuracy_low": accuracy_low,
                    "accuracy_high": accuracy_high,
                    "log_factors": tidy.by_seed(equal.log_factors),
                    "notes": tidy.notes(curve),
                }
            )
    return tidy.write(found) if found else "kind\n"


def fact(arm: Arm, name: str) -> float | None:
    """What the runs of an arm say of their cost, in the mean where they differ."""
    held = [value for run in arm.runs.values() if (value := getattr(run, name)) is not None]
    if not held:
        return None
    return held[0] if len(set(held)) == 1 else sum(held) / len(held)


def _table(curve: CostCurve, metric: str) -> RichTable:
    """A row a point, the lines under each other."""
    lines = curve.lines[metric]
    names = say.arm_names([point for line in lines for point in line.points])
    also = "train_flops" if curve.x == "parameters" else "parameters"
    table = RichTable(box=box.HORIZONTALS, pad_edge=False, header_style="")
    for heading, side in (("line", "left"), ("arm", "left"), (_heading(curve.x), "right"), (_heading(also), "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    table.add_column("mean", no_wrap=True)
    for line in lines:
        for point in line.points:
            first = line.name if point is line.points[0] else ""
            named = names[id(point.arm)] + (" ◆" if point.is_baseline else "")
            table.add_row(first, named, say.cost_words(curve.x, point.cost), _beside(point, also), _mean(line, point))
        table.add_section()
    return table


def _heading(x: str) -> str:
    return {"relative_flops": "relative compute"}.get(x, say.AXES[x])


def _beside(point: Point, name: str) -> str:
    value = fact(point.arm, name)
    if value is None:
        return "–"
    return f"{value:,.0f}" if name == "parameters" else say.cost_words(name, value)


def _mean(line: Line, point: Point) -> str:
    return words.number(point.interval.mean, line.metric) + words.half_width(point.interval, line.metric)
