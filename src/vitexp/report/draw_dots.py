"""Draws a table: every arm as a dot with its interval and its seeds, and its difference to the baseline beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitexp.metrics import is_accuracy, is_share
from vitexp.report import style, words
from vitexp.report.paper import Published, published
from vitexp.report.view import arm_label, baseline_text, paper_figure, seed_counts, short_verdict
from vitexp.stats import Interval
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
    config = table.study.config
    paper = published(config.paper) if config.paper else None
    foot = " ".join((*words.cautions(table.cautions), caption(table, paper)))
    counts = words.span([one for entries in table.entries.values() for one in seed_counts(entries)])
    count, panel = len(table.entries), ARM_INCHES * len(table.arms) + 0.15
    first = next(iter(table.entries.values()))
    letters = max(len(arm_label(table, one.arm)) * (_BOLD if one.is_baseline else 1) for one in first)
    figure, panels = style.page(
        (WIDTH_INCHES, _HEAD + count * panel + (count - 1) * BETWEEN_INCHES + _FOOT),
        (0.3 + 0.077 * letters, _FOOT, _VERDICT, _HEAD),
        (words.title(table.study), f"n = {counts} seeds in each arm", foot),
        (count, 2), (0.1, BETWEEN_INCHES / panel), width_ratios=(1, 1.1),
    )  # fmt: skip
    for (means, differences), metric in zip(panels, table.entries, strict=True):
        # Row by row, column by column; the arms of a row stand together.
        places = [table.at(metric, row, column) for row in table.rows for column in table.columns]
        entries = [entry for entry in places if entry is not None]
        _means(means, table, entries)
        _differences(differences, table, entries, paper)
    shares = [axes for (_, axes), metric in zip(panels, table.entries, strict=True) if is_share(metric)]
    limits = [limit for axes in shares for limit in axes.get_xlim()]
    for axes in shares:  # differences in points are read across metrics
        axes.set_xlim(min(limits), max(limits))
    return figure


def caption(table: Table, paper: Published | None) -> str:
    """What dots, bars and marks mean, and which values tuning chose for each arm."""
    config = table.study.config
    text = "Left: dots are means over seeds, bars 95 % intervals (Student t), small marks single seeds."
    if tuned := [arm for arm in table.arms if arm.tuned]:
        chosen = [", ".join(words.value_label(key, value) for key, value in arm.tuned.items()) for arm in tuned]
        arms = "; ".join(f"{arm_label(table, arm)} {values}" for arm, values in zip(tuned, chosen, strict=True))
        keys = " and ".join(map(words.key_label, config.tune))
        text += f" The {keys} of each arm is best by {config.select}: {arms}."
    if table.comparisons:
        text += f" Right: difference to {baseline_text(table)}, paired by seed; verdicts at 5 % after Holm's "
        text += f"correction over {words.comparisons_text(table.comparisons)}."
        if config.margin:
            text += f" Grey: ±{words.points(config.margin)}, the margin of equivalence."
    entries = [entry for entries in table.entries.values() for entry in entries]
    if paper and any(paper_figure(entry.arm, entry.metric, paper) for entry in entries):
        text += f" Diamonds: the paper's differences, {paper.source}: {paper.caveat}."
    return text


def _means(axes: Axes, table: Table, entries: Sequence[Entry]) -> None:
    metric = entries[0].metric
    scale = 100 if is_share(metric) else 1
    for y, entry in enumerate(entries):
        look = _look(table, entry)
        seeds = [scale * value for value in entry.values.values()]
        axes.plot(seeds, [y + 0.26] * len(seeds), "|", color=look["color"], alpha=0.55, markersize=5)
        if entry.interval:
            _dot(axes, y, entry.interval, scale, look)
    axes.set_yticks(range(len(entries)), [arm_label(table, entry.arm) for entry in entries])
    for tick, entry in zip(axes.get_yticklabels(), entries, strict=True):
        tick.set_fontweight("bold" if entry.is_baseline else "normal")
    _finish(axes, len(entries), words.metric_label(metric) + (" (%)" if scale == 100 else ""))


def _differences(axes: Axes, table: Table, entries: Sequence[Entry], paper: Published | None) -> None:
    metric = entries[0].metric
    scale, margin = 100 if is_share(metric) else 1, table.study.config.margin if is_accuracy(metric) else None
    if margin:
        axes.axvspan(-scale * margin, scale * margin, color="#000000", alpha=0.06, linewidth=0)
    axes.axvline(0, color=style.FAINT, linewidth=1)
    for y, entry in enumerate(entries):
        judged = entry.judgement
        if judged:
            _dot(axes, y, judged.difference, scale, _look(table, entry))
        value, base = (paper_figure(arm, metric, paper) for arm in (entry.arm, entry.baseline or entry.arm))
        if value is not None and base is not None and not entry.is_baseline:
            axes.plot(100 * (value - base), y, "D", color="none", markeredgecolor=style.INK, markersize=5, zorder=4)
        word = "baseline" if entry.is_baseline else short_verdict(judged.verdict) if judged else "no finished run"
        axes.text(1.02, y, word, transform=axes.get_yaxis_transform(), fontsize=8.5, va="center", color=style.FAINT)
    axes.tick_params(labelleft=False)
    axes.set_yticks(range(len(entries)))
    _finish(axes, len(entries), "difference (points)" if scale == 100 else "difference")


def _look(table: Table, entry: Entry) -> dict[str, Any]:
    """Colour and marker tell the column."""
    return style.look(table.columns.index(place(entry.arm, table.study.config)[1]))


def _dot(axes: Axes, y: float, found: Interval, scale: float, look: dict[str, Any]) -> None:
    if found.low is not None and found.high is not None:
        ends = [scale * found.low, scale * found.high]
        axes.plot(ends, [y, y], color=look["color"], linewidth=2.2, solid_capstyle="butt")
    axes.plot(scale * found.mean, y, **look, markersize=7.5, markeredgecolor="white", zorder=3)


def _finish(axes: Axes, count: int, label: str) -> None:
    axes.set_ylim(count - 0.45, -0.55)
    axes.set_xlabel(label)
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
