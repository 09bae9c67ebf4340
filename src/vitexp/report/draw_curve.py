"""Draws a curve: a panel per metric, a line per arm or per family of networks. And writes it with its numbers.

Against a factor a line has its band, its power law and its crossovers on top; against cost every arm is a point with
its name.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vitexp.metrics import is_accuracy, is_share
from vitexp.record import write_atomically
from vitexp.report import curve_text, labels, style, tidy
from vitexp.report.tables import Sweep, TerminalTable, Where, Written
from vitexp.study.claims import families
from vitexp.study.curve import Curve, Line, make_curve
from vitexp.study.fits import Crossover, PowerLaw
from vitexp.study.select import Root
from vitexp.study.spec import as_study

MOST_INSIDE, MOST_MARKS = 4, 2
_LEAST_RATIO = 2.0
"""Of the largest error to the smallest, from which they are drawn on a logarithmic axis."""
_STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_LETTER_INCHES, _BETWEEN_INCHES = 0.085, 0.1
_ON_SEVERAL: dict[str, Any] = {"marker": "o", "markersize": 8, "linestyle": "none", "label": "on several lines"}
_ON_SEVERAL |= {"markerfacecolor": style.GROUND, "markeredgecolor": style.INK, "markeredgewidth": 1.4}
"""How a point on several lines looks."""


def write_curve(sweep: Sweep, runs: Root = "runs", results: str | Path = "results", where: Where = None) -> Written:
    """Accuracy against data size, or against what the runs of the study in `sweep` cost, where its study.x says so.

    Writes results/NAME/curve.{png,svg,csv} and curve-fits.csv, which holds what was read off.

    Raises: ValueError when the study varies no data size, or the records in `runs` do not make a curve.
    """
    curve = make_curve(as_study(sweep), runs, where)
    folder = Path(results) / curve.study.name
    with style.settings():
        pictures = style.save(draw_curve(curve), folder, "curve")
    numbers = folder / "curve.csv", folder / "curve-fits.csv"
    for path, content in zip(numbers, (tidy.points(curve), tidy.fits(curve)), strict=True):
        write_atomically(path, content)
    return Written(TerminalTable(curve_text.curve_view(curve)), (*pictures, *numbers))


def draw_curve(curve: Curve) -> Figure:
    """The figure of a curve, drawn within `style.settings()`."""
    count = len(curve.lines)
    if curve.against_cost:
        width, height, right, head, between = 7.0 if count == 1 else 5.6 * count, 5.4, 0.32, 0.95, 0.18
    else:
        right = 3.3 if max(map(len, curve.lines.values())) > MOST_INSIDE else 0.2  # a legend too long for its panel
        width, height, head, between = (6.6 if count == 1 else 4.4 * count) + right - 0.2, 4.7, 0.78, 0.22
    foot = " ".join((*labels.cautions(curve.cautions), caption(curve)))
    texts = labels.title(curve.study), curve_text.setting(curve), foot
    figure, (panels,) = style.page((width, height), (0.68, 0.62, right, head), texts, (1, count), (between, 0.2))
    for axes, (metric, lines) in zip(panels, curve.lines.items(), strict=True):
        scale = 100 if is_share(metric) else 1
        axes.set_ylabel(labels.metric_label(metric) + (" (%)" if scale == 100 else ""))
        if curve.against_cost:
            _draw_against_cost(axes, curve, lines, scale)
        else:
            _draw_against_factor(axes, curve, metric, scale)
            if axes is panels[-1] or len(lines) <= MOST_INSIDE:
                _legend(axes, lines)
    if curve.against_cost:  # the lines in a row beneath the title
        handles, names = max((axes.get_legend_handles_labels() for axes in panels), key=lambda found: len(found[0]))
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.004, 1 - 0.55 / figure.get_figheight())}
        figure.legend(handles, names, **place, ncols=len(names), fontsize=9, handletextpad=0.5, columnspacing=1.6)
    return figure


def caption(curve: Curve) -> str:
    """What lines, points, bands, bars and marks mean, with exact counts of seeds."""
    counts = [count for lines in curve.lines.values() for count in curve_text.seed_counts(lines)]
    text = f"Mean over n = {labels.span(counts)} seeds"
    if curve.against_cost:
        text += " at the cost of a run; bars: 95 % interval."
        if not curve.study.config.lines:
            text += " Lines: the running best of a family."
        base, networks = _base_network(curve), [families.network(point.arm) for point in curve.points]
        if any(curve_text.short_name(network, base) != network for network in networks):
            text += f" Names say what differs from {base}: w width, d depth, m MLP width, h heads, /patch."
        return text
    text += " at each size; bands: 95 % interval."
    laws = [line.fit for lines in curve.lines.values() for line in lines if isinstance(line.fit, PowerLaw)]
    if laws:
        text += " Dashed: error = a·n⁻ᵇ + c; b with its 95 % bootstrap interval over seeds."
    if any(law.outside for law in laws):
        text += (
            " Hollow: the law leaves the mean by more than its interval over seeds alone (95 %, all sizes together)."
        )
    if any(_crossings(curve, metric) for metric in curve.lines):
        text += " Grey: where the seeds leave open which arm is ahead (95 %), and the size at which the means cross."
    return text


def _crossings(curve: Curve, metric: str) -> list[tuple[Line, Line, Crossover]]:
    """The crossovers that the seeds show."""
    compared = curve.compared[metric]
    return [(one, base, found) for one, base, found in compared if isinstance(found, Crossover) and found.shown]


def _numbers(line: Line, scale: float) -> tuple[list[float], np.ndarray, np.ndarray, np.ndarray]:
    """The places of a line, its means and the ends of their intervals; the mean where there is none."""
    intervals = [point.interval for point in line.points]
    ends = [(one.mean if one.low is None else one.low, one.mean if one.high is None else one.high) for one in intervals]
    low, high = scale * np.array(ends, dtype=float).T
    return [point.x for point in line.points], scale * np.array([one.mean for one in intervals]), low, high


def _log_axis(axes: Axes, places: Sequence[float], margin: float, grids: Iterable[Sequence[float]], axis: str) -> None:
    """A logarithmic axis with the first of some grids whose texts leave room for each other."""
    low, high = places[0] / margin, places[-1] * margin
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().width * figure.get_figwidth()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks(grids, axis, low, high, inches)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: curve_text.place_text(axis, place)))
    axes.set_xlabel(f"{labels.key_label(axis)} (logarithmic)")


def ticks(grids: Iterable[Sequence[float]], axis: str, low: float, high: float, inches: float) -> list[float]:
    """The first grid of which two places or more (the one, if it has no more) lie on the axis with room for texts."""
    for grid in grids:
        found = [tick for tick in grid if low <= tick <= high]
        widths = [_LETTER_INCHES * len(curve_text.place_text(axis, tick)) for tick in found]
        gaps = [inches * math.log(after / before) / math.log(high / low) for before, after in pairwise(found)]
        needed = [(one + other) / 2 + _BETWEEN_INCHES for one, other in pairwise(widths)]
        if len(found) >= min(2, len(grid)) > 0 and all(gap >= need for gap, need in zip(gaps, needed, strict=True)):
            return found
    return [float(f"{low * (high / low) ** share:.3g}") for share in (0.2, 0.8)]


def round_numbers(low: float, high: float) -> list[list[float]]:
    """Grids of round numbers, the finest first."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    grids = [[10.0**power * step for power in powers for step in steps] for steps in _STEPS]
    grids += [[10.0**power for power in powers if power % apart == 0] for apart in (2, 3, 6)]
    return [grid for grid in grids if len(grid) > 1]


def _within_100(axes: Axes, scale: float) -> None:
    if scale == 100:
        axes.set_ylim(max(0, axes.get_ylim()[0]), min(100, axes.get_ylim()[1]))


# Against a factor: bands, power laws, crossovers.


def _draw_against_factor(axes: Axes, curve: Curve, metric: str, scale: float) -> None:
    lines, shown = curve.lines[metric], _crossings(curve, metric)
    for one, base, crossover in shown if len(shown) <= MOST_MARKS else ():
        who = f"{' × '.join(labels.label_text(side.label) for side in (one, base))}: " if len(lines) > 2 else ""
        _mark(axes, crossover, f" {who}{curve_text.between_text(curve.axis, crossover.size or 0)}")
    for index, line in enumerate(lines):
        _band(axes, line, style.look(index), scale)
    sizes = sorted({point.x for line in lines for point in line.points})
    thinned = [sizes[::-step][::-1] for step in range(1, len(sizes))] or [sizes]
    margin = (sizes[-1] / sizes[0]) ** 0.04 if len(sizes) > 1 else 1.5
    _log_axis(axes, sizes, margin, thinned, curve.axis)
    _within_100(axes, scale)


def _band(axes: Axes, line: Line, look: dict[str, Any], scale: float) -> None:
    sizes, means, low, high = _numbers(line, scale)
    axes.fill_between(sizes, low, high, color=look["color"], alpha=0.16, linewidth=0)
    label, fit, solid = labels.label_text(line.label) or labels.metric_label(line.metric), line.fit, "-"
    if isinstance(fit, PowerLaw):
        label, solid = label + f"\u00a0\u00a0 b = {fit.b:.2f} ± {fit.b_interval[1] - fit.b:.2f}", "none"
        spread = np.geomspace(sizes[0], sizes[-1], 101)
        axes.plot(spread, scale * (1 - fit.error(spread)), color=look["color"], linestyle=(0, (4, 2.5)), linewidth=1.1)
    axes.plot(sizes, means, **look, label=label, linestyle=solid, linewidth=1.8, markersize=7, markeredgecolor="white")
    if isinstance(fit, PowerLaw):
        left = [(size, mean) for size, mean in zip(sizes, means, strict=True) if size in fit.outside_at]
        for place in left:
            axes.plot(*place, **look, markersize=7, markerfacecolor=style.GROUND, markeredgewidth=1.6)


def _mark(axes: Axes, crossover: Crossover, text: str) -> None:
    """A crossing and its interval."""
    size, low, high = crossover.size or 0.0, crossover.low or 0.0, crossover.high or 0.0  # all are there once shown
    axes.axvspan(low, high, color="#000000", alpha=0.07, linewidth=0)
    axes.axvline(size, color=style.FAINT, linewidth=1, linestyle=(0, (1, 2)))
    top: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "va": "bottom"}
    axes.annotate(text, (size, 1), **top, fontsize=8, color=style.FAINT)


def _legend(axes: Axes, lines: Sequence[Line]) -> None:
    """Within the picture while it is short, to the right of it otherwise."""
    place: dict[str, Any] = {"loc": "lower right" if is_accuracy(lines[0].metric) else "upper right"}
    if len(lines) > MOST_INSIDE:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    title = ", ".join(labels.key_label(key) for key, _ in lines[0].label)
    legend = axes.legend(**place, title=title, alignment="left", fontsize=9, title_fontsize=9, frameon=True)
    legend.get_frame().set(linewidth=0, alpha=0.85)


# Against cost: points with bars and names on the lines of networks.


def _draw_against_cost(axes: Axes, curve: Curve, lines: Sequence[Line], scale: float) -> None:
    names, base = curve_text.arm_names(curve.points), _base_network(curve)
    drawn, counts = [], Counter(id(point.arm) for line in lines for point in line.points)
    several = [key for key, count in counts.items() if count > 1]
    marks: dict[int, style.Label] = {}
    for index, line in enumerate(lines):
        look, (places, means, low, high) = style.look(index), _numbers(line, scale)
        through = line.points if curve.study.config.lines or not is_accuracy(line.metric) else line.best
        drawn.append([(point.x, scale * point.interval.mean) for point in through])
        bars = [means - low, high - means]
        axes.errorbar(places, means, bars, fmt="none", ecolor=look["color"], elinewidth=1, alpha=0.6, capsize=0)
        axes.plot(*zip(*drawn[-1], strict=True), color=look["color"], linewidth=1.6)
        name = curve_text.line_name(line)
        axes.plot(places, means, **look, label=name, linestyle="none", markersize=7, markeredgecolor="white")
        for point, y, below, above in zip(line.points, means, low, high, strict=True):
            colour = style.INK if id(point.arm) in several else look["color"]
            text = curve_text.short_name(names[id(point.arm)], base)
            marks.setdefault(id(point.arm), style.Label(point.x, y, below, above, text, colour))
    if several:
        shared = [marks[key] for key in several]
        axes.plot([one.x for one in shared], [one.y for one in shared], **_ON_SEVERAL, zorder=4)
    costs = sorted({label.x for label in marks.values()})
    margin = max((costs[-1] / costs[0]) ** 0.09, 1.05)
    grids = round_numbers(costs[0] / margin, costs[-1] * margin)
    _log_axis(axes, costs, margin, grids, curve.axis)
    axes.margins(y=0.12)
    _within_100(axes, scale)
    if is_accuracy(lines[0].metric):
        _error_axis(axes, scale, [label.y for label in marks.values()], max(label.high for label in marks.values()))
    style.annotate(axes, list(marks.values()), drawn)  # the limits are final


def _error_axis(axes: Axes, scale: float, means: Sequence[float], high: float) -> None:
    """Accuracies as far apart as the logarithms of their errors: so the best networks do not lie on each other."""
    low, least = axes.get_ylim()[0], scale - max(means)
    if least <= 0 or (scale - min(means)) / least < _LEAST_RATIO:
        return  # an error of nothing has no logarithm, and errors that are alike need none
    top = scale - 0.8 * max(scale - high, least / 4)
    axes.set_yscale(
        "function", functions=(lambda y: -np.log(np.maximum(scale - y, 1e-9)), lambda z: scale - np.exp(-z))
    )
    axes.set_ylim(low, top)
    errors = [error for grid in round_numbers(scale - top, scale - low)[2:3] for error in grid]
    axes.yaxis.set_major_locator(
        FixedLocator([scale - error for error in errors if scale - top <= error <= scale - low])
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:.6g}"))
    axes.set_ylabel(f"{axes.get_ylabel()}, errors logarithmic")


def _base_network(curve: Curve) -> str:
    """The network of the baseline, where there is one baseline."""
    names = {families.network(point.arm) for point in curve.points if point.is_baseline}
    return names.pop() if len(names) == 1 else ""
