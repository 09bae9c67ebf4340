"""Pictures of the HTML report as SVG within the page: they take its colours, and each mark says its values."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from vitexp.metrics import is_accuracy, is_share
from vitexp.record import RunRecord
from vitexp.report import labels
from vitexp.report.markup import as_html as escape
from vitexp.report.view import arm_label, short_verdict
from vitexp.stats import Interval, Judgement
from vitexp.study.table import Entry, Table, place

_ROW, _PANEL, _LETTER, _COLOURS = 24, 300, 6.6, 7
_CURVE = (420, 200, 52, 12, 34)
"""Width and height of a curve, and its margins at the left, above and below, in pixels."""
_MOST_POINTS = 60


class _Scale:
    """Data to pixels along one direction, over ticks at round numbers."""

    def __init__(self, values: Iterable[float], first: float, last: float, ticks: int = 5) -> None:
        held = list(values)
        low, high = min(held), max(held)
        room = (high - low or abs(high) or 1) * 0.04
        self.low, self.high, self._first, self._last = low - room, high + room, first, last
        self.ticks = [t for t in MaxNLocator(ticks).tick_values(low, high) if self.low <= t <= self.high]

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._first + share * (self._last - self._first), 1)


def dots(table: Table, metric: str) -> str:
    """Every arm in a metric: mean, interval and seeds at the left, the difference to the baseline at the right."""
    entries = table.entries[metric]
    factor = 100 if is_share(metric) else 1
    margin = table.study.config.margin if is_accuracy(metric) else None
    names = [("◆ " if one.is_baseline else "") + arm_label(table, one.arm) for one in entries]
    left = 12 + _LETTER * max(map(len, names))
    levels = [factor * v for one in entries for v in (*one.values.values(), *_ends(one.interval))]
    changes = [factor * v for one in entries for v in _ends(one.judgement)] + [0]
    if not levels:
        return ""
    height = _ROW * len(entries) + 46
    means = _Scale(levels, left + 10, left + _PANEL - 10)
    differences = _Scale(changes, left + _PANEL + 20, left + 2 * _PANEL)
    parts = [_axis(means, height, labels.metric_label(metric) + (" (%)" if factor == 100 else ""))]
    if any(one.judgement for one in entries):
        parts.append(_axis(differences, height, "difference" + (" (points)" if factor == 100 else "")))
        if margin and -factor * margin >= differences.low and factor * margin <= differences.high:
            at, to = differences(-factor * margin), differences(factor * margin)
            parts.append(f'<rect class="margin" x="{at}" y="4" width="{to - at:.1f}" height="{height - 46}"/>')
        parts.append(f'<path class="zero" d="M{differences(0)} 4V{height - 42}"/>')
    for i, (entry, name) in enumerate(zip(entries, names, strict=True)):
        kind = table.columns.index(place(entry.arm, table.study.config)[1]) % _COLOURS
        parts.append(_dot_row(entry, name, _ROW * i + 16, kind, factor, means, differences, left + 2 * _PANEL + 150))
    return _picture(f"{labels.metric_label(metric)} of every arm", left + 2 * _PANEL + 160, height, parts)


def _dot_row(
    entry: Entry, name: str, y: float, kind: int, factor: float, means: _Scale, differences: _Scale, width: float
) -> str:
    told, judged = [name], entry.judgement
    marks = [f'<path class="seed k{kind}" d="M{means(factor * v)} {y + 5}v6"/>' for v in entry.values.values()]
    verdict = "baseline" if entry.is_baseline else short_verdict(judged.verdict) if judged else ""
    if entry.interval:
        marks.append(_dot(entry.interval, means, factor, y, kind))
        told.append(f"{labels.mean(entry.interval, entry.metric)}, n = {entry.interval.n}")
    if judged:
        marks.append(_dot(judged, differences, factor, y, kind))
        told.append(f"difference {labels.signed(judged.mean, entry.metric)}{labels.half_width(judged, entry.metric)}")
    told += [verdict] * bool(verdict)
    side = f'<text class="faint" x="{width - 142:.0f}" y="{y + 4}">{escape(verdict)}</text>'
    hit = f'<rect class="hit" x="0" y="{y - 12}" width="{width:.0f}" height="{_ROW}"/>'
    title = f"<title>{escape('; '.join(told))}</title>"
    return f'<g class="mark">{title}{hit}<text x="4" y="{y + 4}">{escape(name)}</text>{"".join(marks)}{side}</g>'


def _dot(found: Interval | Judgement, scale: _Scale, factor: float, y: float, kind: int) -> str:
    low, middle, high = (scale(factor * v) for v in _ends(found) or [found.mean] * 3)
    bar = f'<path class="bar k{kind}" d="M{low} {y}H{high}"/>' if low < high else ""
    return f'{bar}<circle class="k{kind}" cx="{middle}" cy="{y}" r="4.5"/>'


def _ends(found: Interval | Judgement | None) -> list[float]:
    """Low end, mean and high end; the mean alone thrice where there is no interval."""
    if found is None:
        return []
    return [found.mean if v is None else v for v in (found.low, found.mean, found.high)]


def learning(runs: Mapping[int, RunRecord]) -> str:
    """The curves of some runs, one picture for each metric and one line for each seed."""
    names = dict.fromkeys(name for run in runs.values() for name in run.curves)
    return "".join(
        _learning(name, {s: r.curves[name] for s, r in runs.items() if r.curves.get(name)}) for name in names
    )


def _learning(name: str, curves: Mapping[int, Sequence[tuple[int, float]]]) -> str:
    factor = 100 if is_share(name) else 1
    finite = {seed: [(x, factor * y) for x, y in curve if abs(y) < float("inf")] for seed, curve in curves.items()}
    kept = {seed: _thinned(curve) for seed, curve in finite.items() if len(curve) > 1}
    if not kept:
        return ""
    width, height, left, above, below = _CURVE
    x = _Scale((x for curve in kept.values() for x, _ in curve), left, width - 14)
    y = _Scale((y for curve in kept.values() for _, y in curve), height - below, above)
    parts = [
        f'<path class="grid" d="M{left} {y(t)}H{width - 14}"/>'
        f'<text class="faint" x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in y.ticks
    ]
    parts += [f'<text class="faint" x="{x(t)}" y="{height - 18}" text-anchor="middle">{t:g}</text>' for t in x.ticks]
    parts.append(f'<text class="faint" x="{width - 14}" y="{height - 3}" text-anchor="end">steps</text>')
    for i, (seed, curve) in enumerate(sorted(kept.items())):
        points = " ".join(f"{x(step)},{y(value)}" for step, value in curve)
        values = "|".join(f"{value:.4g} at step {step:,}" for step, value in curve)
        title = f"<title>seed {seed}</title>"
        parts.append(f'<polyline class="mark k{i % _COLOURS}" data-at="{values}" points="{points}">{title}</polyline>')
    label = labels.metric_label(name) + (" (%)" if factor == 100 else "")
    return f"<figure><figcaption>{escape(label)}</figcaption>{_picture(label, width, height, parts)}</figure>"


def _thinned(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """So many points as can be seen, the last among them."""
    every = -(-len(curve) // _MOST_POINTS)
    return list(curve[::-1][::every][::-1])


def _axis(scale: _Scale, height: float, label: str) -> str:
    """Grid lines with their numbers, and beneath them what they measure."""
    lines = [
        f'<path class="grid" d="M{scale(t)} 4V{height - 42}"/>'
        f'<text class="faint" x="{scale(t)}" y="{height - 26}" text-anchor="middle">{f"{t:g}".replace("-", "−")}</text>'
        for t in scale.ticks
    ]
    middle = (scale(scale.low) + scale(scale.high)) / 2
    return "".join(lines) + f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{escape(label)}</text>'


def _picture(label: str, width: float, height: float, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    said = f'aria-label="{escape(label)}"'
    picture = f'<svg role="img" {said} {size}>{"".join(parts)}</svg>'
    return f'<div class="wide" tabindex="0" role="group" {said}>{picture}</div>'
