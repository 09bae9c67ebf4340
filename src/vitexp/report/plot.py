"""Pictures of the HTML report as SVG within the page: they take its colours, and each mark says its values."""

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from vitexp.metrics import is_accuracy, is_share
from vitexp.record import RunRecord
from vitexp.report import labels
from vitexp.report.markup import as_html
from vitexp.report.view import arm_label, short_verdict
from vitexp.stats import Interval
from vitexp.study.table import Entry, Table, place

_ROW, _PANEL, _LETTER, _COLOURS = 24, 300, 6.6, 7
_WIDTH, _TOP, _BOTTOM, _LEFT, _RIGHT = 420, 12, 166, 52, 406
"""Of a learning curve: width of the picture, and sides of its panel, in pixels."""
_POINTS, _LEAST, _MOST = 40_000, 10, 60
"""Points of all learning curves of a study together, and the bounds of one curve's."""


class _Scale:
    """Data to pixels along one direction, over ticks at round numbers."""

    def __init__(self, values: Iterable[float], first: float, last: float, ticks: int = 5) -> None:
        held = list(values)
        low, high = min(held), max(held)
        room = (high - low or abs(high) or 1) * 0.04
        self.low, self.high, self.first = low - room, high + room, first
        self.per_unit = (last - first) / (self.high - self.low)
        self.ticks = [t for t in MaxNLocator(ticks).tick_values(low, high) if self.low <= t <= self.high]

    def __call__(self, value: float) -> float:
        return round(self.first + (value - self.low) * self.per_unit, 1)


def dots(table: Table, metric: str) -> Markup:
    """Every arm in a metric: mean, interval and seeds at the left, the difference to the baseline at the right."""
    entries, factor = table.entries[metric], 100 if is_share(metric) else 1
    names = ["◆ " * one.is_baseline + arm_label(table, one.arm) for one in entries]
    levels = [factor * v for one in entries for v in (*one.values.values(), *_ends(one.interval))]
    if not levels:
        return Markup()
    left, bottom = 12 + _LETTER * max(map(len, names)), _ROW * len(entries) + 4
    width = left + 2 * _PANEL + 160
    means = _Scale(levels, left + 10, left + _PANEL - 10)
    changes = [factor * v for one in entries for v in _ends(one.judgement)]
    differences = _Scale([*changes, 0], left + _PANEL + 20, left + 2 * _PANEL)
    parts: list[str] = [_across(means, bottom, labels.metric_label(metric) + " (%)" * (factor == 100))]
    if changes:
        parts.append(_across(differences, bottom, "difference" + " (points)" * (factor == 100)))
        margin = factor * (table.study.config.margin or 0) * is_accuracy(metric)
        if 0 < margin <= min(-differences.low, differences.high):
            at, to = differences(-margin), differences(margin)
            parts.append(f'<path class="margin" d="M{at} 4H{to}V{bottom}H{at}z"/>')
        parts.append(f'<path class="zero" d="M{differences(0)} 4V{bottom}"/>')
    for i, (entry, name) in enumerate(zip(entries, names, strict=True)):
        marks, facts = _marks(entry, means, differences, factor)
        kind = table.columns.index(place(entry.arm, table.study.config)[1]) % _COLOURS
        row = '<g class="mark k{}" transform="translate(0 {})"><title>{}</title><path class="hit" d="M0-12H{}v24H0z"/>'
        row += '<text x="4" y="4">{}</text>{}<text class="faint" x="{}" y="4">{}</text></g>'
        title = "; ".join(text for text in (name, *facts) if text)
        parts.append(as_html(row, f"{kind}", f"{_ROW * i + 16}", title, f"{width:.0f}", name, marks,
                             f"{width - 142:.0f}", facts[-1]))  # fmt: skip
    return _picture(f"{labels.metric_label(metric)} of every arm", width, bottom + 42, parts)


def _marks(entry: Entry, means: _Scale, differences: _Scale, factor: float) -> tuple[Markup, list[str]]:
    """The seeds, mean and difference of an arm, and what they say, the verdict last."""
    found, judged, metric = entry.interval, entry.judgement, entry.metric
    marks = "".join(f"M{means(factor * value)} 5v6" for value in entry.values.values())
    marks = f'<path class="seed" d="{marks}"/>' if marks else ""
    marks += _dot(found, means, factor) + _dot(judged, differences, factor)
    facts = [f"{labels.mean(found, metric)}, n = {found.n}"] if found else []
    facts += [f"difference {labels.signed(judged.mean, metric)}{labels.half_width(judged, metric)}"] if judged else []
    return Markup(marks), [*facts, "baseline" if entry.is_baseline else short_verdict(judged.verdict) if judged else ""]


def _dot(found: Interval | None, scale: _Scale, factor: float) -> str:
    if found is None:
        return ""
    low, middle, high = (scale(factor * value) for value in _ends(found))
    return f'<path class="bar" d="M{low} 0H{high}"/>' * (low < high) + f'<circle cx="{middle}" r="4.5"/>'


def _ends(found: Interval | None) -> list[float]:
    """Low end, mean and high end; the mean alone thrice where there is no interval."""
    return [found.mean if v is None else v for v in (found.low, found.mean, found.high)] if found else []


def points_of_a_curve(table: Table) -> int:
    """How many points of each learning curve are drawn: fewer of many, so that a page stays small."""
    curves = sum(len(run.curves) for arm in table.arms for run in arm.runs.values())
    return max(_LEAST, min(_MOST, _POINTS // max(1, curves)))


def learning(runs: Mapping[int, RunRecord], points: int) -> list[tuple[str, Markup]]:
    """Caption and picture of the curves of some runs: one picture for each metric, and one line for each seed."""
    names = dict.fromkeys(name for run in runs.values() for name in run.curves)
    found = {name: {s: r.curves[name] for s, r in sorted(runs.items()) if r.curves.get(name)} for name in names}
    return [drawn for name, curves in found.items() for drawn in _learning(name, curves, points)]


def _learning(
    name: str, curves: Mapping[int, Sequence[tuple[int, float]]], points: int
) -> Iterable[tuple[str, Markup]]:
    factor = 100 if is_share(name) else 1
    finite = {seed: [(x, factor * y) for x, y in curve if math.isfinite(y)] for seed, curve in curves.items()}
    longest = max(map(len, finite.values()), default=0)
    every = max(1, -(-longest // points))  # the last is among them
    kept = {seed: curve[::-1][::every][::-1] for seed, curve in finite.items() if len(curve) > 1}
    if not kept:
        return
    x = _Scale((x for curve in kept.values() for x, _ in curve), _LEFT, _RIGHT, 4)
    y = _Scale((y for curve in kept.values() for _, y in curve), _BOTTOM, _TOP, 4)
    label = labels.metric_label(name) + " (%)" * (factor == 100)
    grid = "".join(f"M{_LEFT} {y(t)}H{_RIGHT}" for t in y.ticks)
    parts = [f'<path class="grid" d="{grid}"/><text class="faint" x="{_RIGHT - 26}" y="197">steps</text>']
    parts += [f'<text class="end" x="{_LEFT - 6}" y="{y(t) + 4:.1f}">{t:g}</text>' for t in y.ticks]
    parts += [f'<text class="tick" x="{x(t)}" y="182">{t:g}</text>' for t in x.ticks]
    # Lines are in whole numbers of some steps and of the fourth digit: what is drawn is what a mark says.
    steps = math.gcd(*(step for curve in kept.values() for step, _ in curve)) or 1
    largest = max(abs(value) for curve in kept.values() for _, value in curve) or 1
    unit = 10.0 ** (math.ceil(math.log10(largest)) - 4)
    place = f"{x.per_unit * steps:.6g} 0 0 {y.per_unit * unit:.6g} {x(0)} {y(0)}"
    seeds = " ".join(map(str, kept))
    parts.append(f'<g transform="matrix({place})" data-x="{steps}" data-y="{unit:g}" data-seeds="{seeds}">')
    for curve in kept.values():
        line = " ".join(f"{step // steps} {value / unit:.0f}" for step, value in curve)
        parts.append(f'<polyline points="{line}"/>')
    shown = f", one point in {every}" * (every > 1)
    yield label + shown, _picture(label, _WIDTH, 200, [*parts, "</g>"])


def _across(scale: _Scale, bottom: float, label: str) -> Markup:
    """Grid lines with their numbers, and beneath them what they measure."""
    lines = "".join(f"M{scale(t)} 4V{bottom}" for t in scale.ticks)
    texts = [(scale(t), 16, "tick", f"{t:g}".replace("-", "−")) for t in scale.ticks]
    texts.append((scale((scale.low + scale.high) / 2), 36, "name", label))
    said = [as_html(f'<text class="{kind}" x="{x}" y="{bottom + y}">{{}}</text>', text) for x, y, kind, text in texts]
    return Markup(f'<path class="grid" d="{lines}"/>') + Markup().join(said)


def _picture(label: str, width: float, height: float, parts: Sequence[str]) -> Markup:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return as_html(f'<svg role="img" aria-label="{{}}" {size}>{{}}</svg>', label, Markup("".join(parts)))
