"""Draws accuracy against cost: a panel per metric, a line per family or dimension, every arm a point with its name."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vitexp.metrics import is_accuracy, is_share
from vitexp.report import cost_text as say
from vitexp.report import style, words
from vitexp.report.style import Label, annotate
from vitexp.study.claims import families
from vitexp.study.cost_curve import CostCurve, Line, Point
from vitexp.study.lines import RELATIVE

ONE_PANEL_INCHES, PANEL_INCHES, HEIGHT_INCHES = 7.0, 5.6, 3.9
_STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_LETTER_INCHES, _BETWEEN_INCHES = 0.085, 0.1
SHARED: dict[str, Any] = {
    "marker": "o",
    "markerfacecolor": style.GROUND,
    "markeredgecolor": style.INK,
    "markeredgewidth": 1.4,
}
"""How a point on several lines looks."""


def draw_cost(curve: CostCurve) -> Figure:
    """The figure of a curve against cost, drawn within `style.settings()`."""
    width = ONE_PANEL_INCHES if len(curve.lines) == 1 else PANEL_INCHES * len(curve.lines)
    texts = " ".join((*words.cautions(curve.cautions), caption(curve)))
    below = style.caption_inches(texts, width)
    height = HEIGHT_INCHES + 1.5 + below
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(1, len(curve.lines), squeeze=False)[0]
    figure.subplots_adjust(
        left=0.68 / width, right=1 - 0.15 / width, bottom=(0.62 + below) / height, top=1 - 0.95 / height, wspace=0.18
    )
    for axes, metric in zip(panels, curve.lines, strict=True):
        _panel(axes, curve, metric)
    _legend(figure, curve)
    style.head(figure, curve.study.config.title or f"Study {curve.study.name}", say.budget(curve))
    style.caption(figure, texts)
    return figure


def caption(curve: CostCurve) -> str:
    """What points, bars and names mean, with exact counts of seeds."""
    counts = [len(point.values) for lines in curve.lines.values() for line in lines for point in line.points]
    text = f"Mean over n = {words.span(counts)} seeds at the cost of a run; bars: 95 % interval (Student t)."
    if not curve.study.config.lines:
        text += " Lines: the running best of a family."
    base = _base_name(curve)
    if any(say.short_name(name, base) != name for name in map(_network, curve.points)):
        text += f" Names say what differs from {base}: w width, d depth, m MLP width, h heads, /patch."
    return text


def _panel(axes: Axes, curve: CostCurve, metric: str) -> None:
    scale = 100 if is_share(metric) else 1
    lines = curve.lines[metric]
    for index, line in enumerate(lines):
        _line(axes, line, _drawn(curve, line), style.look(index), scale)
    on = say.lines_of_arms(lines)
    points = list({id(point): point for line in lines for point in line.points}.values())
    for point in points:
        if len(on[id(point)]) > 1:
            axes.plot([point.cost], [scale * point.interval.mean], **SHARED, markersize=8, zorder=4, linestyle="none")
    _cost_axis(axes, sorted({point.cost for point in points}), curve.x)
    axes.set_ylabel(words.metric_words(metric) + (" (%)" if scale == 100 else ""))
    axes.margins(y=0.12)
    if scale == 100:
        axes.set_ylim(max(0, axes.get_ylim()[0]), min(100, axes.get_ylim()[1]))
    style.plain(axes, grid="y")
    _names(axes, curve, metric, scale)


def _drawn(curve: CostCurve, line: Line) -> list[tuple[float, float]]:
    """Where a line runs: through every arm of a named one, through the running best of a family."""
    points = line.points if curve.study.config.lines or not is_accuracy(line.metric) else line.best
    return [(point.cost, point.interval.mean) for point in points]


def _line(axes: Axes, line: Line, drawn: Sequence[tuple[float, float]], look: dict[str, Any], scale: float) -> None:
    costs = [point.cost for point in line.points]
    intervals = [point.interval for point in line.points]
    means = [scale * interval.mean for interval in intervals]
    ends = [_ends(point, scale) for point in line.points]
    bars = [[mean - low for mean, (low, _) in zip(means, ends, strict=True)],
            [high - mean for mean, (_, high) in zip(means, ends, strict=True)]]  # fmt: skip
    axes.errorbar(costs, means, bars, fmt="none", ecolor=look["color"], elinewidth=1, alpha=0.6, capsize=0)
    axes.plot([cost for cost, _ in drawn], [scale * mean for _, mean in drawn], color=look["color"], linewidth=1.6)
    axes.plot(costs, means, **look, linestyle="none", markersize=7, markeredgecolor="white")


def _names(axes: Axes, curve: CostCurve, metric: str, scale: float) -> None:
    """The name of each arm once, in the colour of its line."""
    lines, base = curve.lines[metric], _base_name(curve)
    names = say.arm_names([point for line in lines for point in line.points])
    on = say.lines_of_arms(lines)
    labels: dict[int, Label] = {}
    for index, line in enumerate(lines):
        for point in line.points:
            low, high = _ends(point, scale)
            colour = style.INK if len(on[id(point)]) > 1 else style.look(index)["color"]
            text = say.short_name(names[id(point.arm)], base)
            mean = scale * point.interval.mean
            labels.setdefault(id(point), Label(x=point.cost, y=mean, low=low, high=high, text=text, colour=colour))
    drawn = [[(cost, scale * mean) for cost, mean in _drawn(curve, line)] for line in lines]
    annotate(axes, list(labels.values()), drawn)


def _ends(point: Point, scale: float) -> tuple[float, float]:
    mean, low, high = point.interval.mean, point.interval.low, point.interval.high
    return scale * (mean if low is None else low), scale * (mean if high is None else high)


def _legend(figure: Figure, curve: CostCurve) -> None:
    """The lines in a row beneath the title."""
    lines = max(curve.lines.values(), key=len)
    marks = [
        Line2D([], [], **style.look(index), label=line.name, linewidth=1.6, markersize=7, markeredgecolor="white")
        for index, line in enumerate(lines)
    ]
    if any(len(names) > 1 for names in say.lines_of_arms(lines).values()):
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
    name = say.AXES[x] + (" of a run" if x in ("train_flops", "train_seconds") else "")
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
    number, unit = say.cost_words(x, cost).rstrip("×"), "×" if x == RELATIVE else ""
    head, _, tail = number.partition(" ")
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return f"{head} {tail}".strip() + unit
