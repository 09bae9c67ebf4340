"""Curves in words: against data size and against cost, on the terminal and below a picture."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp import stats
from vitexp.report import words
from vitexp.report.paper import published
from vitexp.report.tables import caution, footnote
from vitexp.report.view import paper_words
from vitexp.study.arm import Arm, spelling
from vitexp.study.claims import families
from vitexp.study.cost_curve import CostCurve, EqualAccuracy, Line, Point
from vitexp.study.curve import SIZES, Crossover, Curve, Series
from vitexp.study.frame import fact
from vitexp.study.lines import RELATIVE
from vitexp.study.powerlaw import PowerLaw

MOST_COLUMNS = 4


def curve_text(curve: Curve | CostCurve) -> RenderableType:
    """A curve's numbers, metric by metric, with what is read off them."""
    parts: list[RenderableType] = [
        Text(title(curve), style="bold"),
        Text(setting(curve), style="dim"),
        *map(caution, words.cautions(curve.cautions)),
    ]
    for metric in lines_of(curve):
        table = _cost_table(curve, metric) if isinstance(curve, CostCurve) else _points(curve, metric)
        parts += [Text(), Text(words.headline(metric, seed_counts(curve, metric)), style="bold"), table]
        parts += [footnote(sentence) for sentence in sentences(curve, metric)]
    if isinstance(curve, CostCurve) and any(point.is_baseline for point in curve.points):
        parts.append(footnote("◆ is the baseline."))
    if curve.study.config.paper:
        parts.append(footnote(paper_words(published(curve.study.config.paper))))
    return Group(*parts, *(footnote(words.sentence(note)) for note in curve.notes), Text())


def title(curve: Curve | CostCurve) -> str:
    """The heading of a curve."""
    return curve.study.config.title or f"Study {curve.study.name}"


def setting(curve: Curve | CostCurve) -> str:
    """What the runs of a curve have in common, as the line below its heading."""
    return budget(curve) if isinstance(curve, CostCurve) else curve.budget[0].upper() + curve.budget[1:]


def lines_of(curve: Curve | CostCurve) -> Mapping[str, Sequence[Line | Series]]:
    """The lines of each metric: families or dimensions against cost, arms against data size."""
    return curve.lines if isinstance(curve, CostCurve) else curve.series


def seed_counts(curve: Curve | CostCurve, *only: str) -> list[int]:
    """How many seeds are behind each point, of some metrics or of all."""
    lines = [line for metric in only or lines_of(curve) for line in lines_of(curve)[metric]]
    return [len(point.values) for line in lines for point in line.points]


def sentences(curve: Curve | CostCurve, metric: str) -> list[str]:
    """What is read off the points of a metric: equal accuracy against cost; fits and crossovers against data size."""
    if isinstance(curve, CostCurve):
        return [f"{equal_words(*found, curve.x)}." for found in curve.equal[metric]]
    crossings = [f"{crossover_words(*found, curve.x)}." for found in curve.crossovers[metric]]
    return [*_fits(curve, metric), *crossings, *_tuned(curve, metric)]


def fit_words(fit: PowerLaw | str) -> str:
    """A power law in a sentence, or why there is none."""
    if isinstance(fit, str):
        return f"no power law is drawn; {fit}"
    half = fit.b_interval[1] - fit.b
    text = (
        f"error = {fit.a:.3g} · n^−{fit.b:.2f} + {fit.c:.4f}, exponent ± {half:.2f}, {_floor(fit)} "
        f"(bootstrap over {fit.seeds} seeds); the largest miss is {100 * fit.miss:.2f} points"
    )
    if fit.outside:
        text += f"; it leaves the joint 95 % intervals at {fit.outside} of {fit.sizes} sizes: a summary, not a law"
    return text


def _floor(fit: PowerLaw) -> str:
    """The floor with its interval; a fit that lies on its bound in every resample says nothing of its size."""
    if fit.c_interval[1] == 0:
        return "no floor seen"
    return f"floor {' to '.join(words.number(end, 'test_acc') for end in fit.c_interval)} %"


def crossover_words(one: Series, base: Series, found: Crossover, x: str) -> str:
    """Which arm leads where along `x`, and how sure that is."""
    ahead, behind = (_label(one), _label(base))[:: found.leader or 1]
    if not found.leader:
        return f"{_label(one)} and {_label(base)} do not differ at any size"
    if found.size is None and found.crossings:
        return f"{_label(one)} and {_label(base)} change places {found.crossings} times in the mean: no one crossover"
    if found.size is None:
        return f"{ahead} is ahead of {behind} in the mean at every size"
    text = f"{behind} overtakes {ahead} at {place_words(x, found.size)}"
    if found.low is None or found.high is None:
        return f"{text} by the means alone: not enough evidence under 3 seeds"
    low = "before the smallest size" if found.low == 0 else f"{found.low:,.0f}"
    high = "beyond the largest size" if found.high == math.inf else f"{found.high:,.0f}"
    return f"{text}; 95 % interval {low} to {high} (n = {found.seeds} seeds)" + (
        "" if found.shown else ", so that a crossing is not shown"
    )


def place_words(x: str, size: float) -> str:
    """A place between two points of the axis."""
    return f"{size:,.0f} images" if x in SIZES else f"{words.key_words(x)} {size:.3g}"


def _label(series: Series) -> str:
    return words.label_words(series.label) or "the only arm"


def _points(curve: Curve, metric: str) -> RichTable:
    series = curve.series[metric]
    table = RichTable(box=box.HORIZONTALS, pad_edge=False, header_style="")
    if len(series) > MOST_COLUMNS:
        return _long(table, curve, series)
    table.add_column(words.key_words(curve.x), justify="right")
    for one in series:
        table.add_column(_label(one))
    for size in sorted({point.size for one in series for point in one.points}):
        table.add_row(words.value_words(curve.x, size), *(_cell(one, size) for one in series))
    return table


def _long(table: RichTable, curve: Curve, series: Sequence[Series]) -> RichTable:
    """One line per arm and size, where the arms are too many to stand beside each other."""
    for heading, side in (("arm", "left"), (words.key_words(curve.x), "right"), ("mean", "left")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    for one in series:
        for point in one.points:
            first = _label(one) if point is one.points[0] else ""
            table.add_row(first, words.value_words(curve.x, point.size), _cell(one, point.size))
        table.add_section()
    return table


def _fits(curve: Curve, metric: str) -> list[str]:
    """A sentence per arm, or one for all when they lack a fit for the same reason."""
    fits = curve.fits[metric]
    if len(fits) > 1 and isinstance(fits[0], str) and len(set(map(str, fits))) == 1:
        return [f"All arms: {fit_words(fits[0])}."]
    return [f"{_label(one)}: {fit_words(fit)}." for one, fit in zip(curve.series[metric], fits, strict=True)]


def _tuned(curve: Curve, metric: str) -> list[str]:
    """The values that tuning chose, in the order of the sizes."""
    series = [one for one in curve.series[metric] if any(point.tuned for point in one.points)]
    found = []
    for key in curve.study.config.tune if series else ():
        chosen = (", ".join(words.value_words(key, point.tuned.get(key)) for point in one.points) for one in series)
        arms = "; ".join(f"{_label(one)} {values}" for one, values in zip(series, chosen, strict=True))
        best = words.metric_words(curve.study.config.select)
        found.append(f"The {words.key_words(key)} that is best by {best} at each size: {arms}.")
    return found


def _cell(series: Series, size: float) -> str:
    interval = next((point.interval for point in series.points if point.size == size), None)
    if interval is None:
        return "no finished run"
    return words.mean(interval, series.metric)


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
    return key not in families.NETWORK and len({spelling(other.factors.get(key)) for other in alike}) > 1


def lines_of_arms(lines: Sequence[Line]) -> Mapping[int, list[str]]:
    """The names of the lines that each point stands on."""
    found: dict[int, list[str]] = {}
    for line in lines:
        for point in line.points:
            found.setdefault(id(point), []).append(line.name)
    return found


def _cost_table(curve: CostCurve, metric: str) -> RichTable:
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
            table.add_row(
                first,
                named,
                cost_words(curve.x, point.cost),
                _beside(point, also),
                words.mean(point.interval, line.metric),
            )
        table.add_section()
    return table


def _heading(x: str) -> str:
    return {"relative_flops": "relative compute"}.get(x, AXES[x])


def _beside(point: Point, name: str) -> str:
    value = fact(point.arm, name)
    if value is None:
        return "–"
    return f"{value:,.0f}" if name == "parameters" else cost_words(name, value)
