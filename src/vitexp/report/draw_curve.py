"""Draws accuracy against data size: a panel per metric, a line with its band per arm, fits and crossovers on top."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vitexp.metrics import is_accuracy, is_share
from vitexp.report import style, words
from vitexp.report.curve_text import place_words
from vitexp.study.curve import Crossover, Curve, Series
from vitexp.study.powerlaw import PowerLaw

PANEL_INCHES, HEIGHT_INCHES, LEGEND_INCHES = (6.6, 4.4), 3.4, 3.3
MOST_INSIDE, MOST_MARKS = 4, 2
_FITTED = 100  # points of a fitted line


def draw_curve(curve: Curve) -> Figure:
    """The figure of a curve, drawn within `style.settings()`."""
    text = " ".join((*words.cautions(curve.cautions), caption(curve)))
    below = style.caption_inches(text, _width(curve))
    height = HEIGHT_INCHES + 1.3 + below
    figure = Figure(figsize=(_width(curve), height))
    panels = figure.subplots(1, len(curve.series), squeeze=False)[0]
    left, right = 0.68 / _width(curve), 1 - _legend_inches(curve) / _width(curve)
    figure.subplots_adjust(left=left, right=right, bottom=(0.62 + below) / height, top=1 - 0.78 / height, wspace=0.22)
    for axes, metric in zip(panels, curve.series, strict=True):
        _panel(axes, curve, metric)
        if axes is panels[-1] or len(curve.series[metric]) <= MOST_INSIDE:
            _legend(axes, curve.series[metric])
    style.head(
        figure, curve.study.config.title or f"Study {curve.study.name}", curve.budget[0].upper() + curve.budget[1:]
    )
    style.caption(figure, text)
    return figure


def caption(curve: Curve) -> str:
    """What lines, bands and marks mean, with exact counts of seeds."""
    counts = [len(point.values) for series in curve.series.values() for one in series for point in one.points]
    text = f"Mean over n = {words.span(counts)} seeds at each size; bands: 95 % interval (Student t)."
    fits = [fit for found in curve.fits.values() for fit in found]
    if any(isinstance(fit, PowerLaw) for fit in fits):
        text += " Dashed: error = a·n⁻ᵇ + c; b with its 95 % bootstrap interval over seeds."
    if any(crossover.shown for found in curve.crossovers.values() for *_, crossover in found):
        text += " Grey: where the seeds leave open which arm is ahead (95 %), and the size at which the means cross."
    return text


def _legend_inches(curve: Curve) -> float:
    """The room beside the last panel for a legend that is too long to stand in it."""
    return LEGEND_INCHES if max(map(len, curve.series.values())) > MOST_INSIDE else 0.2


def _width(curve: Curve) -> float:
    panels = PANEL_INCHES[0] if len(curve.series) == 1 else PANEL_INCHES[1] * len(curve.series)
    return panels + _legend_inches(curve) - 0.2


def _panel(axes: Axes, curve: Curve, metric: str) -> None:
    scale = 100 if is_share(metric) else 1
    shown = [found for found in curve.crossovers[metric] if found[2].shown]
    for one, base, crossover in shown if len(shown) <= MOST_MARKS else ():
        sides = [words.label_words(side.label) for side in (one, base)]
        who = f"{' × '.join(sides)}: " if len(curve.series[metric]) > 2 else ""
        _mark(axes, crossover, f" {who}{place_words(curve.x, crossover.size or 0)}")
    for index, (series, fit) in enumerate(zip(curve.series[metric], curve.fits[metric], strict=True)):
        _line(axes, series, fit, index, scale)
    sizes = sorted({point.size for series in curve.series[metric] for point in series.points})
    _size_axis(axes, sizes, words.key_words(curve.x))
    axes.set_ylabel(words.metric_words(metric) + (" (%)" if scale == 100 else ""))
    if scale == 100:
        axes.set_ylim(max(0, axes.get_ylim()[0]), min(100, axes.get_ylim()[1]))
    style.plain(axes, grid="y")


def _legend(axes: Axes, series: Sequence[Series]) -> None:
    """Within the picture while it is short, to the right of it otherwise."""
    inside = {"loc": "lower right" if is_accuracy(series[0].metric) else "upper right"}
    outside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    place: dict[str, Any] = inside if len(series) <= MOST_INSIDE else outside
    title = ", ".join(words.key_words(key) for key, _ in series[0].label)
    legend = axes.legend(**place, title=title, alignment="left", fontsize=9, title_fontsize=9, frameon=True)
    legend.get_frame().set(linewidth=0, alpha=0.85)


def _line(axes: Axes, series: Series, fit: PowerLaw | str, index: int, scale: float) -> None:
    look = style.look(index)
    sizes = [point.size for point in series.points]
    intervals = [point.interval for point in series.points]
    low = [scale * (i.mean if i.low is None else i.low) for i in intervals]
    high = [scale * (i.mean if i.high is None else i.high) for i in intervals]
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
