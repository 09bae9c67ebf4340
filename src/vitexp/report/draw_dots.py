"""Draws a table: every arm as a dot with its interval and its seeds, and its difference to the baseline beside it."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitexp.metrics import is_accuracy, is_share
from vitexp.report import labels, style
from vitexp.report.footnotes import baseline_text
from vitexp.report.paper import Published, published
from vitexp.report.tables import Sweep, Where
from vitexp.report.view import arm_label, paper_figure, seed_counts, short_verdict
from vitexp.stats import Interval
from vitexp.study.select import Root
from vitexp.study.table import Entry, Table, make_table, place

WIDTH_INCHES, ARM_INCHES, BETWEEN_INCHES = 9.6, 0.32, 0.8
_HEAD, _FOOT, _VERDICT = 0.7, 0.62, 1.5
_BOLD = 1.13  # how much wider bold letters are
_LETTERS = 48  # of a line of an arm's name


def write_dots(
    sweep: Sweep, runs: Root = "runs", results: str | Path = "results", where: Where = None
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
    foot = " ".join((*labels.cautions(table.cautions), caption(table, paper)))
    counts = labels.span([one for entries in table.entries.values() for one in seed_counts(entries)])
    first = next(iter(table.entries.values()))
    names = [(_wrapped(table, one).split("\n"), _BOLD if one.is_baseline else 1) for one in first]
    letters = max(len(line) * wider for lines, wider in names for line in lines)
    inches = max(ARM_INCHES, 0.08 + 0.16 * max(len(lines) for lines, _ in names))
    count, panel = len(table.entries), inches * len(table.arms) + 0.15
    figure, panels = style.page(
        (WIDTH_INCHES, _HEAD + count * panel + (count - 1) * BETWEEN_INCHES + _FOOT),
        (0.3 + 0.077 * letters, _FOOT, _VERDICT, _HEAD),
        (labels.title(table.study), f"n = {counts} seeds in each arm", foot),
        (count, 2), (0.1, BETWEEN_INCHES / panel), width_ratios=(1, 1.1),
    )  # fmt: skip
    for (means, differences), metric in zip(panels, table.entries, strict=True):
        # Row by row, column by column; the arms of a row stand together.
        places = [table.at(metric, row, column) for row in table.rows for column in table.columns]
        entries = [entry for entry in places if entry is not None]
        _row(means, differences, table, entries, paper)
    shares = [axes for (_, axes), metric in zip(panels, table.entries, strict=True) if is_share(metric)]
    limits = [limit for axes in shares for limit in axes.get_xlim()]
    for axes in shares:  # differences in points are read across metrics
        axes.set_xlim(min(limits), max(limits))
    return figure


def caption(table: Table, paper: Published | None) -> str:
    """What dots, bars and marks mean, and which values tuning chose for each arm."""
    config = table.study.config
    text = "Left: dots are means over seeds, bars 95 % intervals, small marks single seeds."
    if tuned := [arm for arm in table.arms if arm.tuned]:
        chosen = [", ".join(labels.value_label(key, value) for key, value in arm.tuned.items()) for arm in tuned]
        arms = "; ".join(f"{arm_label(table, arm)} {values}" for arm, values in zip(tuned, chosen, strict=True))
        keys = " and ".join(map(labels.key_label, config.tune))
        text += f" The {keys} of each arm is best by {config.select}: {arms}."
    if table.comparisons:
        text += f" Right: difference to {baseline_text(table)}, paired by seed; bars hold together in "
        text += f"95 % of cases over {labels.comparisons_text(table.comparisons)}."
        if config.margin:
            text += f" Grey: ±{labels.points(config.margin)}, the margin of equivalence."
    entries = [entry for entries in table.entries.values() for entry in entries]
    if paper and any(paper_figure(entry.arm, entry.metric, paper) for entry in entries):
        text += f" Diamonds: the paper's differences, {paper.source}: {paper.caveat}."
    return text


def _wrapped(table: Table, entry: Entry) -> str:
    """The name of an arm on as few lines as it takes; a value stays on the line of its key."""
    kept = arm_label(table, entry.arm).replace(" ", "\u00a0").replace(",\u00a0", ", ")
    return textwrap.fill(kept, _LETTERS, break_long_words=False).replace("\u00a0", " ")


def _row(means: Axes, differences: Axes, table: Table, entries: Sequence[Entry], paper: Published | None) -> None:
    metric, config = entries[0].metric, table.study.config
    scale = 100 if is_share(metric) else 1
    if config.margin and is_accuracy(metric):
        differences.axvspan(-scale * config.margin, scale * config.margin, color="#000000", alpha=0.06, linewidth=0)
    differences.axvline(0, color=style.FAINT, linewidth=1)
    for y, entry in enumerate(entries):
        look = style.look(table.columns.index(place(entry.arm, config)[1]))  # colour and marker tell the column
        seeds, judged = [scale * value for value in entry.values.values()], entry.judgement
        means.plot(seeds, [y + 0.26] * len(seeds), "|", color=look["color"], alpha=0.55, markersize=5)
        if entry.interval:
            _dot(means, y, entry.interval, scale, look)
        if judged:
            _dot(differences, y, judged, scale, look)
        value, base = (paper_figure(arm, metric, paper) for arm in (entry.arm, entry.baseline or entry.arm))
        if value is not None and base is not None and not entry.is_baseline:
            mark: dict[str, Any] = {"color": "none", "markeredgecolor": style.INK, "markersize": 5, "zorder": 4}
            differences.plot(100 * (value - base), y, "D", **mark)
        word = "baseline" if entry.is_baseline else short_verdict(judged.verdict) if judged else "no finished run"
        beside: dict[str, Any] = {"transform": differences.get_yaxis_transform(), "color": style.FAINT}
        differences.text(1.02, y, word, **beside, fontsize=8.5, va="center")
    means.set_xlabel(labels.metric_label(metric) + (" (%)" if scale == 100 else ""))
    differences.set_xlabel("difference" + (" (points)" if scale == 100 else ""))
    for axes in (means, differences):
        axes.set_yticks(range(len(entries)), [_wrapped(table, entry) for entry in entries])
        axes.set_ylim(len(entries) - 0.45, -0.55)
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
    differences.tick_params(labelleft=False)
    for tick, entry in zip(means.get_yticklabels(), entries, strict=True):
        tick.set_fontweight("bold" if entry.is_baseline else "normal")


def _dot(axes: Axes, y: float, found: Interval, scale: float, look: dict[str, Any]) -> None:
    if found.low is not None and found.high is not None:
        ends = [scale * found.low, scale * found.high]
        axes.plot(ends, [y, y], color=look["color"], linewidth=2.2, solid_capstyle="butt")
    axes.plot(scale * found.mean, y, **look, markersize=7.5, markeredgecolor="white", zorder=3)
