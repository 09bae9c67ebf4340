"""A curve against cost on the terminal and as CSV: every point with what it cost, and what was read off the lines."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp import stats
from vitexp.report import tidy, words
from vitexp.report.paper import published
from vitexp.report.tables import caution, footnote
from vitexp.report.view import paper_words
from vitexp.study import arm as mixture
from vitexp.study.arm import Arm
from vitexp.study.claims import families
from vitexp.study.cost_curve import CostCurve, EqualAccuracy, Line, Point
from vitexp.study.frame import spread
from vitexp.study.lines import RELATIVE

# A curve against cost in words: costs with their units, arms by short names, what is read off the lines.

AXES = {
    "train_flops": "training compute",
    RELATIVE: "training compute relative to the baseline",
    "parameters": "parameters",
    "train_seconds": "training time",
}
LESS = {"train_flops": "less compute", RELATIVE: "less compute", "parameters": "fewer parameters"}
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_SIZES = re.compile(r"(w\d+)(d\d+)(m\d+)(h\d+)(/\d+)")


def cost_words(x: str, cost: float) -> str:
    """A cost with its unit, to three digits: 1.27 TFLOP, 2.5×, 1.3 M, 12.3 s."""
    if x == RELATIVE:
        return f"{_digits(cost)}×"
    if x == "train_seconds":
        return f"{_digits(cost)} s"
    power = min(max(0, math.floor(math.log10(float(f"{cost:.2e}"))) // 3), len(_PREFIXES) - 1)
    unit = _PREFIXES[power] + ("FLOP" if x == "train_flops" else "")
    return f"{_digits(cost / 1000**power)} {unit}".strip()


def _digits(value: float) -> str:
    """Three digits or more, without an exponent."""
    rounded = float(f"{value:.3g}")
    return f"{value:,.0f}" if rounded >= 100 else f"{rounded:.{2 - math.floor(math.log10(rounded))}f}"


def arm_names(points: Sequence[Point]) -> dict[int, str]:
    """The arm of each point by its network, and by the other factors where that does not tell it from another."""
    arms = list({id(point.arm): point.arm for point in points}.values())
    found = {}
    for arm in arms:
        alike = [other for other in arms if families.network(other) == families.network(arm)]
        label = tuple((key, value) for key, value in arm.factors.items() if _tells(key, value, alike))
        network = _network(arm)
        found[id(arm)] = ", ".join(text for text in (network, words.label_words(label)) if text) or "the only arm"
    return found


def short_name(name: str, base: str) -> str:
    """A network in numbers by what differs from another: d8 for w32d8m64h2/4 beside w32d2m64h2/4."""
    sizes, others = _SIZES.match(name), _SIZES.match(base)
    if not sizes or not others or name == base:
        return name
    parts = [part for part, other in zip(sizes.groups(), others.groups(), strict=True) if part != other]
    return (" ".join(parts) or "the same") + name[sizes.end() :]


def budget(curve: CostCurve) -> str:
    """What the runs have in common: data, images, epochs; and how many there are."""
    arms = {id(point.arm): point.arm for point in curve.points}.values()
    runs = [run for arm in arms for run in arm.runs.values()]
    images, epochs = (
        {read(run) for run in runs} for read in (lambda r: r.data.get("train_images"), lambda r: r.epochs)
    )
    parts = [
        ", ".join(dict.fromkeys(str(run.data["name"]) for run in runs if "name" in run.data)),
        f"{images.pop():,} training images" if len(images) == 1 and None not in images else "",
        f"{epochs.pop():.4g} epochs" if len(epochs) == 1 and None not in epochs else "",
        f"{len(arms)} arms",
        f"{len(runs)} runs",
    ]
    return " · ".join(part for part in parts if part)


def sentences(curve: CostCurve, metric: str) -> list[str]:
    """What is read off the lines of a metric."""
    return [f"{equal_words(*found, curve.x)}." for found in curve.equal[metric]]


def equal_words(one: Line, base: Line, found: EqualAccuracy, x: str) -> str:
    """How many times less one line costs than another at equal accuracy, and how sure that is."""
    metric = words.metric_words(one.metric)
    if not found.gaps:
        return f"{one.name} and {base.name} share no seed, so they are not compared at equal {metric}"
    if found.factor is None or found.accuracies is None:
        return f"{one.name} and {base.name} reach no common {metric}"
    ends = " to ".join(words.number(end, one.metric) for end in found.accuracies)
    return (
        f"For equal {metric} {one.name} needs {_times(found.factor, x)} than {base.name}"
        f"{_sure(found)}, over the {ends} % that both reach"
    )


def _times(factor: float, x: str) -> str:
    less = LESS.get(x, "less training time")
    if factor >= 1:
        return f"{factor:.2f} times {less}"
    return f"{1 / factor:.2f} times {less.replace('less', 'more').replace('fewer', 'more')}"


def _sure(found: EqualAccuracy) -> str:
    n = len(found.log_factors)
    if found.apart:
        return f" in the mean of {n} of {len(found.gaps)} seeds, while at the others they reach no common accuracy"
    if n < stats.MINIMUM_SEEDS:
        return f" (n = {n}: not enough evidence under {stats.MINIMUM_SEEDS} seeds)"
    if found.interval is None:
        return f" (the same at each of n = {n} seeds)"
    low, high = found.interval if (found.factor or 0) >= 1 else [1 / end for end in reversed(found.interval)]
    shown = "" if low > 1 else ", which holds 1: no difference is shown"
    return f" (95 % interval {low:.2f} to {high:.2f}, n = {n} seeds{shown})"


def _network(arm: Arm) -> str:
    """The network where the runs or the factors name one."""
    name = families.network(arm)
    return "" if name == "None" else name


def _tells(key: str, value: Any, alike: Sequence[Arm]) -> bool:
    """Whether a factor, which does not name the network, differs between arms that have the same network."""
    return key not in families.NETWORK and len({mixture.text(other.factors.get(key)) for other in alike}) > 1


def lines_of_arms(lines: Sequence[Line]) -> Mapping[int, list[str]]:
    """The names of the lines that each point stands on."""
    found: dict[int, list[str]] = {}
    for line in lines:
        for point in line.points:
            found.setdefault(id(point), []).append(line.name)
    return found


FACTS = ("train_flops", "parameters", "train_seconds")


def cost_text(curve: CostCurve) -> RenderableType:
    """Points and comparisons of every metric."""
    parts: list[RenderableType] = [
        Text(curve.study.config.title or f"Study {curve.study.name}", style="bold"),
        Text(budget(curve), style="dim"),
        *map(caution, words.cautions(curve.cautions)),
    ]
    for metric, lines in curve.lines.items():
        counts = [len(point.values) for line in lines for point in line.points]
        parts += [Text(), Text(words.headline(metric, counts), style="bold"), _table(curve, metric)]
        parts += [footnote(sentence) for sentence in sentences(curve, metric)]
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
                **spread(point.interval),
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
    names = arm_names([point for line in lines for point in line.points])
    also = "train_flops" if curve.x == "parameters" else "parameters"
    table = RichTable(box=box.HORIZONTALS, pad_edge=False, header_style="")
    for heading, side in (("line", "left"), ("arm", "left"), (_heading(curve.x), "right"), (_heading(also), "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    table.add_column("mean", no_wrap=True)
    for line in lines:
        for point in line.points:
            first = line.name if point is line.points[0] else ""
            named = names[id(point.arm)] + (" ◆" if point.is_baseline else "")
            table.add_row(first, named, cost_words(curve.x, point.cost), _beside(point, also), _mean(line, point))
        table.add_section()
    return table


def _heading(x: str) -> str:
    return {"relative_flops": "relative compute"}.get(x, AXES[x])


def _beside(point: Point, name: str) -> str:
    value = fact(point.arm, name)
    if value is None:
        return "–"
    return f"{value:,.0f}" if name == "parameters" else cost_words(name, value)


def _mean(line: Line, point: Point) -> str:
    return words.number(point.interval.mean, line.metric) + words.half_width(point.interval, line.metric)
