"""Draws a curve, against data size or against cost: a panel per metric, a line per arm or per family of networks.

Against data size a line has its band, its power law and its crossovers on top; against cost every arm is a point with
its name.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vitexp import stats
from vitexp.report import curve_text, style, words
from vitexp.report.curve_text import lines_of, seed_counts
from vitexp.report.style import Label, annotate
from vitexp.study.claims import families
from vitexp.study.cost_curve import CostCurve, Line, Point
from vitexp.study.curve import Crossover, Curve, Series
from vitexp.study.lines import RELATIVE
from vitexp.study.powerlaw import PowerLaw
from vitexp.study.table import is_accuracy

MOST_INSIDE, MOST_MARKS = 4, 2
_FITTED = 100  # points of a fitted line
_STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_LETTER_INCHES, _BETWEEN_INCHES = 0.085, 0.1
SHARED: dict[str, Any] = {
    "marker": "o",
    "markerfacecolor": style.GROUND,
    "markeredgecolor": style.INK,
    "markeredgewidth": 1.4,
}
"""How a point on several lines looks."""


def draw_curve(curve: Curve | CostCurve) -> Figure:
    """The figure of a curve, drawn within `style.settings()`."""
    count = len(lines_of(curve))
    if isinstance(curve, CostCurve):
        width, right, height, head, between = 7.0 if count == 1 else 5.6 * count, 0.15, 5.4, 0.95, 0.18
    else:
        right, height, head, between = _legend_inches(curve), 4.7, 0.78, 0.22
        width = (6.6 if count == 1 else 4.4 * count) + right - 0.2
    text = " ".join((*words.cautions(curve.cautions), caption(curve)))
    below = style.caption_inches(text, width)
    height += below
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(1, count, squeeze=False)[0]
    figure.subplots_adjust(
        left=0.68 / width,
        right=1 - right / width,
        bottom=(0.62 + below) / height,
        top=1 - head / height,
        wspace=between,
    )
    for axes, metric in zip(panels, lines_of(curve), strict=True):
        _panel(axes, curve, metric, axes is panels[-1])
    if isinstance(curve, CostCurve):
        _cost_legend(figure, curve)
    style.head(figure, curve_text.title(curve), curve_text.setting(curve))
    style.caption(figure, text)
    return figure


def caption(curve: Curve | CostCurve) -> str:
    """What lines, points, bands, bars and marks mean, with exact counts of seeds."""
    seeds = f"Mean over n = {words.span(seed_counts(curve))} seeds"
    if isinstance(curve, CostCurve):
        return f"{seeds} at the cost of a run; bars: 95 % interval (Student t).{_cost_caption(curve)}"
    return f"{seeds} at each size; bands: 95 % interval (Student t).{_size_caption(curve)}"


def _size_caption(curve: Curve) -> str:
    text = ""
    fits = [fit for found in curve.fits.values() for fit in found]
    if any(isinstance(fit, PowerLaw) for fit in fits):
        text += " Dashed: error = a·n⁻ᵇ + c; b with its 95 % bootstrap interval over seeds."
    if any(crossover.shown for found in curve.crossovers.values() for *_, crossover in found):
        text += " Grey: where the seeds leave open which arm is ahead (95 %), and the size at which the means cross."
    return text


def _cost_caption(curve: CostCurve) -> str:
    text = "" if curve.study.config.lines else " Lines: the running best of a family."
    base = _base_name(curve)
    if any(curve_text.short_name(name, base) != name for name in map(_network, curve.points)):
        text += f" Names say what differs from {base}: w width, d depth, m MLP width, h heads, /patch."
    return text


def _panel(axes: Axes, curve: Curve | CostCurve, metric: str, last: bool) -> None:
    scale = 100 if is_accuracy(metric) else 1
    if isinstance(curve, CostCurve):
        _cost_lines(axes, curve, metric, scale)
    else:
        _size_lines(axes, curve, metric, scale)
    axes.set_ylabel(words.metric_words(metric) + (" (%)" if scale == 100 else ""))
    if isinstance(curve, CostCurve):
        axes.margins(y=0.12)
    if scale == 100:
        axes.set_ylim(max(0, axes.get_ylim()[0]), min(100, axes.get_ylim()[1]))
    style.plain(axes, grid="y")
    if isinstance(curve, CostCurve):
        _names(axes, curve, metric, scale)
    elif last or len(curve.series[metric]) <= MOST_INSIDE:
        _legend(axes, curve.series[metric])


def _ends(interval: stats.Interval, scale: float) -> tuple[float, float]:
    """The ends of an interval; the mean where there is none."""
    mean, low, high = interval.mean, interval.low, interval.high
    return scale * (mean if low is None else low), scale * (mean if high is None else high)


def _legend_inches(curve: Curve) -> float:
    """The room beside the last panel for a legend that is too long to stand in it."""
    return 3.3 if max(map(len, curve.series.values())) > MOST_INSIDE else 0.2


def _size_lines(axes: Axes, curve: Curve, metric: str, scale: float) -> None:
    shown = [found for found in curve.crossovers[metric] if found[2].shown]
    for one, base, crossover in shown if len(shown) <= MOST_MARKS else ():
        sides = [words.label_words(side.label) for side in (one, base)]
        who = f"{' × '.join(sides)}: " if len(curve.series[metric]) > 2 else ""
        _mark(axes, crossover, f" {who}{curve_text.place_words(curve.x, crossover.size or 0)}")
    for index, (series, fit) in enumerate(zip(curve.series[metric], curve.fits[metric], strict=True)):
        _band(axes, series, fit, index, scale)
    sizes = sorted({point.size for series in curve.series[metric] for point in series.points})
    _size_axis(axes, sizes, words.key_words(curve.x))


def _legend(axes: Axes, series: Sequence[Series]) -> None:
    """Within the picture while it is short, to the right of it otherwise."""
    inside = {"loc": "lower right" if is_accuracy(series[0].metric) else "upper right"}
    outside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    place: dict[str, Any] = inside if len(series) <= MOST_INSIDE else outside
    title = ", ".join(words.key_words(key) for key, _ in series[0].label)
    legend = axes.legend(**place, title=title, alignment="left", fontsize=9, title_fontsize=9, frameon=True)
    legend.get_frame().set(linewidth=0, alpha=0.85)


def _band(axes: Axes, series: Series, fit: PowerLaw | str, index: int, scale: float) -> None:
    look = style.look(index)
    sizes = [point.size for point in series.points]
    intervals = [point.interval for point in series.points]
    low, high = zip(*(_ends(interval, scale) for interval in intervals), strict=True)
    axes.fill_between(sizes, low, high, color=look["color"], alpha=0.16, linewidth=0)
    label = words.label_words(series.label) or words.metric_words(series.metric)
    if isinstance(fit, PowerLaw):
        label += f"\u00a0\u00a0 b = {fit.b:.2f} ± {fit.b_interval[1] - fit.b:.2f}"
        spread = [sizes[0] * (sizes[-1] / sizes[0]) ** (step / _FITTED) for step in range(_FITTED + 1)]
        axes.plot(spread, scale * (1 - fit.error(spread)), color=look["color"], linestyle=(0, (4, 2.5)), linewidth=1.1)
    solid = "none" if isinstance(fit, PowerLaw) else "-"
    means = [scale * interval.mean for interval in intervals]
    axes.plot(sizes, means, **look, label=label, linestyle=solid, linewidth=1.8, markersize=7, markeredgecolor="white")


def _mark(axes: Axes, crossover: Crossover, text: str) -> None:
    """A crossing and its interval."""
    if crossover.size is not None and crossover.low is not None and crossover.high is not None:
        axes.axvspan(crossover.low, crossover.high, color="#000000", alpha=0.07, linewidth=0)
        axes.axvline(crossover.size, color=style.FAINT, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            text,
            (crossover.size, 1),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color=style.FAINT,
            va="bottom",
        )


def _size_axis(axes: Axes, sizes: Sequence[float], name: str) -> None:
    """A logarithmic axis with the sizes studied as its ticks, thinned where they would run into each other."""
    axes.set_xscale("log")
    margin = (sizes[-1] / sizes[0]) ** 0.04 if len(sizes) > 1 else 1.5
    axes.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(_apart(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}" if size >= 1 else f"{size:g}"))
    axes.set_xlabel(f"{name} (logarithmic)")


def _apart(sizes: Sequence[float], most: int = 11) -> list[float]:
    """The sizes that keep a label's distance, from the largest down."""
    span = math.log(sizes[-1] / sizes[0]) or 1.0
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) >= span / most:
            kept.append(size)
    return kept[::-1]


def _cost_lines(axes: Axes, curve: CostCurve, metric: str, scale: float) -> None:
    lines = curve.lines[metric]
    for index, line in enumerate(lines):
        _line(axes, line, _drawn(curve, line), style.look(index), scale)
    on = curve_text.lines_of_arms(lines)
    points = list({id(point): point for line in lines for point in line.points}.values())
    for point in points:
        if len(on[id(point)]) > 1:
            axes.plot([point.cost], [scale * point.interval.mean], **SHARED, markersize=8, zorder=4, linestyle="none")
    _cost_axis(axes, sorted({point.cost for point in points}), curve.x)


def _drawn(curve: CostCurve, line: Line) -> list[tuple[float, float]]:
    """Where a line runs: through every arm of a named one, through the running best of a family."""
    points = line.points if curve.study.config.lines or not is_accuracy(line.metric) else line.best
    return [(point.cost, point.interval.mean) for point in points]


def _line(axes: Axes, line: Line, drawn: Sequence[tuple[float, float]], look: dict[str, Any], scale: float) -> None:
    costs = [point.cost for point in line.points]
    intervals = [point.interval for point in line.points]
    means = [scale * interval.mean for interval in intervals]
    ends = [_ends(point.interval, scale) for point in line.points]
    bars = [[mean - low for mean, (low, _) in zip(means, ends, strict=True)],
            [high - mean for mean, (_, high) in zip(means, ends, strict=True)]]  # fmt: skip
    axes.errorbar(costs, means, bars, fmt="none", ecolor=look["color"], elinewidth=1, alpha=0.6, capsize=0)
    axes.plot([cost for cost, _ in drawn], [scale * mean for _, mean in drawn], color=look["color"], linewidth=1.6)
    axes.plot(costs, means, **look, linestyle="none", markersize=7, markeredgecolor="white")


def _names(axes: Axes, curve: CostCurve, metric: str, scale: float) -> None:
    """The name of each arm once, in the colour of its line."""
    lines, base = curve.lines[metric], _base_name(curve)
    names = curve_text.arm_names([point for line in lines for point in line.points])
    on = curve_text.lines_of_arms(lines)
    labels: dict[int, Label] = {}
    for index, line in enumerate(lines):
        for point in line.points:
            low, high = _ends(point.interval, scale)
            colour = style.INK if len(on[id(point)]) > 1 else style.look(index)["color"]
            text = curve_text.short_name(names[id(point.arm)], base)
            mean = scale * point.interval.mean
            labels.setdefault(id(point), Label(x=point.cost, y=mean, low=low, high=high, text=text, colour=colour))
    drawn = [[(cost, scale * mean) for cost, mean in _drawn(curve, line)] for line in lines]
    annotate(axes, list(labels.values()), drawn)


def _cost_legend(figure: Figure, curve: CostCurve) -> None:
    """The lines in a row beneath the title."""
    lines = max(curve.lines.values(), key=len)
    marks = [
        Line2D([], [], **style.look(index), label=line.name, linewidth=1.6, markersize=7, markeredgecolor="white")
        for index, line in enumerate(lines)
    ]
    if any(len(names) > 1 for names in curve_text.lines_of_arms(lines).values()):
        marks.append(Line2D([], [], **SHARED, markersize=8, linestyle="none", label="on several lines"))
    figure.legend(
        handles=marks, loc="upper left", bbox_to_anchor=(0.004, 1 - 0.55 / figure.get_figheight()), ncols=len(marks),
        fontsize=9, handletextpad=0.5, columnspacing=1.6,
    )  # fmt: skip


def _network(point: Point) -> str:
    return families.network(point.arm)


def _base_name(curve: CostCurve) -> str:
    """The network of the baseline, where there is one baseline."""
    names = {_network(point) for point in curve.points if point.is_baseline}
    return names.pop() if len(names) == 1 else ""


def _cost_axis(axes: Axes, costs: Sequence[float], x: str) -> None:
    """A logarithmic axis with round numbers as its ticks, in their units."""
    axes.set_xscale("log")
    margin = max((costs[-1] / costs[0]) ** 0.09, 1.05)
    low, high = costs[0] / margin, costs[-1] * margin
    axes.set_xlim(low, high)
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().width * figure.get_figwidth()
    axes.xaxis.set_major_locator(FixedLocator(ticks(low, high, x, inches)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: tick_words(x, cost)))
    name = curve_text.AXES[x] + (" of a run" if x in ("train_flops", "train_seconds") else "")
    axes.set_xlabel(f"{name} (logarithmic)")


def ticks(low: float, high: float, x: str, inches: float) -> list[float]:
    """Round numbers between two others, as many as their words leave room for; at least two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [[10.0**power * step for power in powers for step in steps] for steps in _STEPS]
    within += [[10.0**power for power in powers if power % apart == 0] for apart in (2, 3, 6)]
    for found in ([tick for tick in grid if low <= tick <= high] for grid in within):
        if len(found) > 1 and _keep_apart(found, high / low, x, inches):
            return found
    return [float(f"{low * (high / low) ** share:.3g}") for share in (0.2, 0.8)]


def _keep_apart(found: Sequence[float], ratio: float, x: str, inches: float) -> bool:
    """Whether the words of neighbours leave a gap between them."""
    widths = [_LETTER_INCHES * len(tick_words(x, tick)) for tick in found]
    gaps = [inches * math.log(after / before) / math.log(ratio) for before, after in pairwise(found)]
    return all(gap >= (a + b) / 2 + _BETWEEN_INCHES for gap, (a, b) in zip(gaps, pairwise(widths), strict=True))


def tick_words(x: str, cost: float) -> str:
    """A round cost with its unit and no idle digits: 200 GFLOP, 1 TFLOP, 0.5×."""
    number, unit = curve_text.cost_words(x, cost).rstrip("×"), "×" if x == RELATIVE else ""
    head, _, tail = number.partition(" ")
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return f"{head} {tail}".strip() + unit
