"""Draws accuracy against how much test images were changed: a panel for each kind of change, a line for each arm."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from vitexp import stats
from vitexp.metrics import CORRUPTIONS, ROBUST
from vitexp.record import run_mark
from vitexp.report import labels, style
from vitexp.report.view import arm_label, seed_counts
from vitexp.robust import SEVERITIES
from vitexp.study.table import Entry, Table

CLEAN = "test_acc"
_ACROSS, _WIDTH, _HEIGHT = 3, 3.3, 2.5
_LEGEND = 2
"""Names of arms beside each other"""
Level = tuple[str, Sequence[str]]
"""What stands at a place of the horizontal axis, and the metrics whose mean is drawn there."""


def draw_robustness(table: Table, groups: Iterable[tuple[str, Mapping[str, str]]], folder: Path) -> tuple[Path, ...]:
    """Writes robustness.png and robustness.svg; nothing where no kind of change has two levels.

    `groups` are titles, each with its tests and their headings.
    """
    panels = [(title, levels) for title, levels in _panels(table, groups) if len(levels) > 2]
    if not panels:
        return ()
    rows, legend = -(-len(panels) // _ACROSS), 0.2 * -(-len(table.arms) // _LEGEND)
    arms = [arm_label(table, entry.arm) for entry in table.entries[CLEAN]]
    counts = labels.span(seed_counts(table.entries[CLEAN]))
    foot = "Lines are means over seeds, bands 95 % intervals; first in each panel: all test images as they are. "
    foot += "FGSM, PGD and what a network itself attends to are each network's own."
    with style.settings():
        figure, axes = style.page(
            (0.9 + _ACROSS * _WIDTH, 1.15 + legend + rows * _HEIGHT),
            (0.6, 0.45, 0.2, 0.9 + legend),
            (f"{labels.title(table.study)}: robustness", f"n = {counts} seeds in each arm", foot),
            (rows, _ACROSS),
            (0.18, 0.38),
            sharey=True,
        )
        for place, one in enumerate(axes.flat):
            if place >= len(panels):
                one.set_visible(False)
                continue
            _panel(one, table, *panels[place])
            if place % _ACROSS == 0:
                one.set_ylabel("top-1 accuracy (%)")
        axes.flat[0].set_ylim(0, min(100, 20 * math.ceil(axes.flat[0].get_ylim()[1] / 20)))
        handles, _ = axes.flat[0].get_legend_handles_labels()
        height = figure.get_size_inches()[1]
        place_of: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.005, 1 - 0.55 / height)}
        figure.legend(handles, arms, ncols=_LEGEND, **place_of, frameon=False, fontsize=8)
        runs = [run_mark(run) for arm in table.arms for run in arm.runs.values()]
        return style.save(figure, folder, "robustness", runs)


def _panels(table: Table, groups: Iterable[tuple[str, Mapping[str, str]]]) -> Iterator[tuple[str, list[Level]]]:
    clean: Level = ("clean", [CLEAN])
    yield from ((title, [clean, *((text, [name]) for name, text in held.items())]) for title, held in groups)
    for whose in ("", "ours_"):
        found = [[f"{ROBUST}{whose}{family}_{level}" for family in CORRUPTIONS] for level in SEVERITIES]
        whole = [names for names in zip(*found, strict=True) if all(name in table.entries for name in names)]
        levels = [list(names) for names in zip(*whole, strict=True)] or [[] for _ in SEVERITIES]
        held = [(str(level), names) for level, names in zip(SEVERITIES, levels, strict=True) if names]
        ours = " of ours" if whose else ""
        yield f"Corruptions{ours}, by severity (mean of families)", [clean, *held]


def _panel(axes: Axes, table: Table, title: str, levels: Sequence[Level]) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xticks(range(len(levels)), [re.sub(r"^(\d+)x\1$", r"\1×\1", text) for text, _ in levels], fontsize=8)
    for number, first in enumerate(table.entries[CLEAN]):
        points = (_interval([table.entries[name][number] for name in names]) for _, names in levels)
        known = [(x, found) for x, found in enumerate(points) if found is not None]
        look = style.look(number) | ({"linestyle": "--"} if number >= len(style.COLOURS) else {})
        axes.plot([x for x, _ in known], [100 * found.mean for _, found in known], **look, markersize=4, linewidth=1.4,
                  label=arm_label(table, first.arm))  # fmt: skip
        ends = [(x, 100 * one.low, 100 * one.high) for x, one in known if one.low is not None and one.high is not None]
        if ends:
            places, low, high = zip(*ends, strict=True)
            axes.fill_between(places, low, high, color=look["color"], alpha=0.13, linewidth=0)


def _interval(entries: Sequence[Entry]) -> stats.Interval | None:
    """That of one metric, or over seeds of the mean of several; cut at 0 and 100 % as in tables."""
    if len(entries) == 1:
        return entries[0].interval
    seeds = set.intersection(*(set(entry.values) for entry in entries))
    means = [sum(entry.values[seed] for entry in entries) / len(entries) for seed in sorted(seeds)]
    return stats.within_shares(stats.interval(means)) if means else None
