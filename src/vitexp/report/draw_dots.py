"""Draws a table: every arm as a dot with its interval and its seeds, and its difference to the baseline beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitexp.metrics import is_accuracy, is_share
from vitexp.report import style, words
from vitexp.report.paper import Published, published
from vitexp.report.view import arm_label, baseline_label, paper_figure, short_verdict
from vitexp.study.select import Root
from vitexp.study.spec import Study
from vitexp.study.table import Entry, Table, make_table, place

WIDTH_INCHES, ARM_INCHES, BETWEEN_INCHES = 9.6, 0.32, 0.8
_HEAD, _FOOT, _VERDICT = 0.7, 0.62, 1.5
_BOLD = 1.13  # how much wider bold letters are


def write_dots(
    sweep: str | Path | Study,
    runs: Root = "runs",
    results: str | Path = "results",
    where: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """The arms of a table as dots with intervals, and their differences to the baseline: results/NAME/dots.{png,svg}.

    Raises: ValueError when the records in `runs` do not make a table.
    """
    table = make_table(sweep, runs, where)
    with style.settings():
        return style.save(draw_dots(table), Path(results) / table.study.name, "dots")


def draw_dots(table: Table) -> Figure:
    """The figure of a table, drawn within `style.settings()`."""
    paper = published(table.study.config.paper) if table.study.config.paper else None
    text = " ".join((*words.cautions(table.cautions), caption(table, paper)))
    foot, count = _FOOT + style.caption_inches(text, WIDTH_INCHES), len(table.entries)
    panel = ARM_INCHES * len(table.arms) + 0.15
    height = _HEAD + count * panel + (count - 1) * BETWEEN_INCHES + foot
    figure = Figure(figsize=(WIDTH_INCHES, height))
    panels = figure.subplots(count, 2, squeeze=False, width_ratios=(1, 1.1))
    letters = max(
        len(arm_label(table, entry.arm)) * (_BOLD if entry.is_baseline else 1)
        for entry in next(iter(table.entries.values()))
    )
    figure.subplots_adjust(
        left=(0.3 + 0.077 * letters) / WIDTH_INCHES, right=1 - _VERDICT / WIDTH_INCHES, wspace=0.1,
        bottom=foot / height, top=1 - _HEAD / height, hspace=BETWEEN_INCHES / panel,
    )  # fmt: skip
    for (means, differences), metric in zip(panels, table.entries, strict=True):
        entries = _in_layout_order(table, metric)
        _means(means, table, entries)
        _differences(differences, table, entries, paper)
    _one_scale([axes for (_, axes), metric in zip(panels, table.entries, strict=True) if is_share(metric)])
    style.head(figure, table.study.config.title or f"Study {table.study.name}", _counts(table))
    style.caption(figure, text)
    return figure


def caption(table: Table, paper: Published | None) -> str:
    """What dots, bars and marks mean."""
    text = "Left: dots are means over seeds, bars 95 % intervals (Student t), small marks single seeds."
    text += tuned_words(table)
    if table.comparisons:
        base = words.label_text(baseline_label(table))
        text += f" Right: difference to {base}, paired by seed; verdicts at 5 % after Holm's correction over "
        text += f"{words.comparisons_text(table.comparisons)}."
        if table.study.config.margin:
            text += f" Grey: ±{words.points(table.study.config.margin)}, the margin of equivalence."
    if paper and any(
        paper_figure(entry.arm, metric, paper) for metric in table.entries for entry in table.entries[metric]
    ):
        text += f" Diamonds: the paper's differences, {paper.source}: {paper.caveat}."
    return text


def tuned_words(table: Table) -> str:
    """Which values tuning chose for each arm."""
    chosen = [
        f"{arm_label(table, arm)} {', '.join(words.value_label(key, value) for key, value in arm.tuned.items())}"
        for arm in table.arms
        if arm.tuned
    ]
    keys = " and ".join(words.key_label(key) for key in table.study.config.tune)
    return f" The {keys} of each arm is best by {table.study.config.select}: {'; '.join(chosen)}." if chosen else ""


def _counts(table: Table) -> str:
    counts = [entry.interval.n if entry.interval else 0 for entries in table.entries.values() for entry in entries]
    return f"n = {words.span(counts)} seeds in each arm"


def _in_layout_order(table: Table, metric: str) -> list[Entry]:
    """Row by row, column by column; the arms of a row stand together."""
    found = (table.at(metric, row, column) for row in table.rows for column in table.columns)
    return [entry for entry in found if entry is not None]


def _look(table: Table, entry: Entry) -> dict[str, Any]:
    """Colour and marker tell the column."""
    _, column = place(entry.arm, table.study.config)
    return style.look(table.columns.index(column))


def _one_scale(panels: Sequence[Axes]) -> None:
    """Differences in points are read across metrics."""
    for axes in panels:
        axes.set_xlim(min(other.get_xlim()[0] for other in panels), max(other.get_xlim()[1] for other in panels))


def _means(axes: Axes, table: Table, entries: Sequence[Entry]) -> None:
    scale = 100 if is_share(entries[0].metric) else 1
    for y, entry in enumerate(entries):
        look = _look(table, entry)
        seeds = [scale * value for value in entry.values.values()]
        axes.plot(seeds, [y + 0.26] * len(seeds), "|", color=look["color"], alpha=0.55, markersize=5)
        if entry.interval:
            _dot(axes, y, scale * entry.interval.mean, entry.interval.low, entry.interval.high, scale, look)
    axes.set_yticks(range(len(entries)), [arm_label(table, entry.arm) for entry in entries])
    for tick, entry in zip(axes.get_yticklabels(), entries, strict=True):
        tick.set_fontweight("bold" if entry.is_baseline else "normal")
    _finish(axes, len(entries), words.metric_label(entries[0].metric) + (" (%)" if scale == 100 else ""))


def _differences(axes: Axes, table: Table, entries: Sequence[Entry], paper: Published | None) -> None:
    metric = entries[0].metric
    scale, margin = 100 if is_share(metric) else 1, table.study.config.margin if is_accuracy(metric) else None
    if margin:
        axes.axvspan(-scale * margin, scale * margin, color="#000000", alpha=0.06, linewidth=0)
    axes.axvline(0, color=style.FAINT, linewidth=1)
    for y, entry in enumerate(entries):
        judged = entry.judgement
        if judged:
            found = judged.difference
            _dot(axes, y, scale * found.mean, found.low, found.high, scale, _look(table, entry))
        value, base = (paper_figure(arm, entry.metric, paper) for arm in (entry.arm, entry.baseline or entry.arm))
        if value is not None and base is not None and not entry.is_baseline:
            axes.plot(100 * (value - base), y, "D", color="none", markeredgecolor=style.INK, markersize=5, zorder=4)
        word = "baseline" if entry.is_baseline else short_verdict(judged.verdict) if judged else "no finished run"
        axes.text(1.02, y, word, transform=axes.get_yaxis_transform(), fontsize=8.5, va="center", color=style.FAINT)
    axes.tick_params(labelleft=False)
    axes.set_yticks(range(len(entries)))
    _finish(axes, len(entries), "difference (points)" if scale == 100 else "difference")


def _dot(
    axes: Axes, y: float, middle: float, low: float | None, high: float | None, scale: float, look: dict[str, Any]
) -> None:
    if low is not None and high is not None:
        axes.plot([scale * low, scale * high], [y, y], color=look["color"], linewidth=2.2, solid_capstyle="butt")
    axes.plot(middle, y, **look, markersize=7.5, markeredgecolor="white", zorder=3)


def _finish(axes: Axes, count: int, label: str) -> None:
    axes.set_ylim(count - 0.45, -0.55)
    axes.set_xlabel(label)
    axes.spines["left"].set_visible(False)
    style.plain(axes, grid="x")
