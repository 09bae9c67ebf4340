"""A curve on the terminal: the numbers under the picture, and what was read off them."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vitexp.report import words
from vitexp.report.paper import published
from vitexp.report.tables import caution, footnote
from vitexp.report.view import paper_words
from vitexp.study.curve import SIZES, Crossover, Curve, Series
from vitexp.study.powerlaw import PowerLaw

MOST_COLUMNS = 4


def curve_text(curve: Curve) -> RenderableType:
    """Points, fits and crossovers of every metric."""
    title = curve.study.config.title or f"Study {curve.study.name}"
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        Text(curve.budget[0].upper() + curve.budget[1:], style="dim"),
        *map(caution, words.cautions(curve.cautions)),
    ]
    for metric, series in curve.series.items():
        counts = [len(point.values) for one in series for point in one.points]
        parts += [Text(), Text(words.headline(metric, counts), style="bold"), _points(curve, metric)]
        parts += [footnote(sentence) for sentence in sentences(curve, metric)]
    if curve.study.config.paper:
        parts.append(footnote(paper_words(published(curve.study.config.paper))))
    return Group(*parts, *(footnote(words.sentence(note)) for note in curve.notes), Text())


def sentences(curve: Curve, metric: str) -> list[str]:
    """What is read off the points of a metric: fits, then crossovers."""
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
    return words.number(interval.mean, series.metric) + words.half_width(interval, series.metric)
