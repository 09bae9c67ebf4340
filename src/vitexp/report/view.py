"""A table in words: what every rendering of it says, before any of them sets it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from vitexp import stats
from vitexp.metrics import is_share
from vitexp.record import RunRecord, flatten, option
from vitexp.report import labels
from vitexp.report.footnotes import footnotes
from vitexp.report.paper import Published, published
from vitexp.study.arm import Arm
from vitexp.study.table import ALL, GROUP, Entry, Table, place

MOST_COLUMNS = 4
NOTHING = "–"
Rendered = TypeVar("Rendered")


@dataclass(frozen=True, kw_only=True)
class CellView:
    """One arm in one metric, in words; an empty text is left out."""

    mean: str
    count: str = ""
    difference: str = ""
    verdict: str = ""
    p: str = ""
    tuned: str = ""
    paper: str = ""
    baseline: bool = False
    entry: Entry | None = field(default=None, compare=False, repr=False)
    """What it says in words"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One metric: a grid of cells, or a list of arms without columns; None where the study has no such arm.

    `facts` are more columns of a list, by their headings.
    """

    title: str
    corner: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[CellView | None, ...]], ...]
    facts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def as_table(
        self, text: Callable[[str], Rendered], cell: Callable[[CellView], Rendered]
    ) -> tuple[list[str], list[list[Rendered]]]:
        """Headings and rows, of a grid as of a list; `text` renders a text of a row, and `cell` an arm."""
        if self.columns:
            rows = [
                [text(label), *(text(NOTHING) if one is None else cell(one) for one in row)] for label, row in self.rows
            ]
            return [self.corner, *self.columns], rows
        columns = self.listed()
        return list(columns), [list(map(text, row)) for row in zip(*columns.values(), strict=True)]

    def listed(self) -> dict[str, list[str]]:
        """The arms of a list as columns by their headings; those that would be empty are left out."""
        arms = [(label, cell) for label, (cell, *_) in self.rows if cell is not None]
        columns = {
            "arm": [f"◆ {label}" if cell.baseline else label for label, cell in arms],
            **{heading: list(texts) for heading, texts in self.facts.items()},
            "mean": [cell.mean for _, cell in arms],
            "n": [cell.count.removeprefix("n = ") for _, cell in arms],
            "difference": [cell.difference for _, cell in arms],
            "verdict": [cell.verdict for _, cell in arms],
            "p (adjusted)": [cell.p for _, cell in arms],
            "tuned": [cell.tuned for _, cell in arms],
            "paper": [cell.paper.removeprefix("paper ") for _, cell in arms],
        }
        return {name: texts for name, texts in columns.items() if any(texts)}


@dataclass(frozen=True, kw_only=True)
class View:
    """A whole table in words."""

    name: str
    title: str
    setting: str
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...]


def make_view(table: Table) -> View:
    """The words of a table."""
    config = table.study.config
    paper = published(config.paper) if config.paper else None
    sections = [_section(table, metric, paper) for metric in config.metrics]
    sections += [_means_over_sets(table, metric) for metric in config.metrics if table.means.get(metric)]
    beside = any(cell and cell.paper for section in sections for _, row in section.rows for cell in row)
    return View(
        name=config.name,
        title=labels.title(table.study),
        setting=shared_setting(table.arms),
        cautions=labels.cautions(table.cautions),
        sections=tuple(sections),
        footnotes=tuple(footnotes(table, paper, beside)),
    )


def _section(table: Table, metric: str, paper: Published | None) -> Section:
    """A grid where the study has a few columns, else a list of its arms."""
    columns = table.columns if 1 < len(table.columns) <= MOST_COLUMNS else ()
    rows: list[tuple[str, Sequence[Entry | None]]] = [
        (labels.label_text(row), [table.at(metric, row, column) for column in columns]) for row in table.rows
    ]
    if not columns:
        rows = [(arm_label(table, entry.arm), [entry]) for entry in table.entries[metric]]
    counts = seed_counts(table.entries[metric])
    return Section(
        title=labels.headline(metric, counts),
        corner=", ".join(labels.key_label(key) for key, _ in table.rows[0]),
        columns=tuple(map(labels.label_text, columns)),
        rows=_rendered(rows, paper, counts),
    )


def _means_over_sets(table: Table, metric: str) -> Section:
    """A column for the mean over all data sets and one for each group."""
    entries, groups = table.means[metric], table.study.config.groups
    rows: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        kind = labels.label_text(tuple((key, value) for key, value in entry.arm.factors.items() if key != GROUP))
        rows.setdefault(kind or "the only arm", {})[str(entry.arm.factors[GROUP])] = entry
    sizes = {ALL: sum(map(len, groups.values()))} | {name: len(members) for name, members in groups.items()}
    counts = seed_counts(entries)
    over = "over data sets, %" if is_share(metric) else "over data sets"
    return Section(
        title=f"Mean {labels.metric_label(metric)} {over}: ± 95 % interval, n = {labels.span(counts)} seeds",
        corner=", ".join(labels.key_label(key) for key in entries[0].arm.factors if key != GROUP),
        columns=tuple(f"{name} ({count})" for name, count in sizes.items()),
        rows=_rendered([(kind, [row.get(name) for name in sizes]) for kind, row in rows.items()], None, counts),
    )


def seed_counts(entries: Iterable[Entry]) -> list[int]:
    """How many seeds are behind each mean."""
    return [entry.interval.n if entry.interval else 0 for entry in entries]


def _rendered(
    rows: Sequence[tuple[str, Sequence[Entry | None]]], paper: Published | None, counts: Sequence[int]
) -> tuple[tuple[str, tuple[CellView | None, ...]], ...]:
    differing = len(set(counts)) > 1
    return tuple(
        (label, tuple(None if entry is None else cell_view(entry, paper, differing) for entry in row))
        for label, row in rows
    )


def cell_view(entry: Entry, paper: Published | None = None, with_count: bool = False) -> CellView:
    """One arm in one metric."""
    interval, judged, beside = entry.interval, entry.judgement, _paper_beside(entry, paper)
    if interval is None:
        return CellView(mean="no finished run", paper=beside, baseline=entry.is_baseline, entry=entry)
    return CellView(
        mean=labels.mean(interval, entry.metric),
        count=f"n = {interval.n}" if with_count else "",
        difference=_difference(judged, interval.n, entry.metric) if judged else "",
        verdict=short_verdict(judged.verdict) if judged else "not compared" if entry.left_out else "",
        p=labels.probability(judged.p_adjusted) if judged else "",
        tuned=", ".join(f"{labels.key_label(key)} {labels.value_label(key, v)}" for key, v in entry.arm.tuned.items()),
        paper=beside,
        baseline=entry.is_baseline,
        entry=entry,
    )


def arm_label(table: Table, arm: Arm) -> str:
    """An arm by its row and column."""
    row, column = place(arm, table.study.config)
    return labels.label_text((*row, *column)) or "the only arm"


def short_verdict(verdict: str) -> str:
    """The verdict without the margin, which a footnote states once."""
    if verdict.startswith("equivalent"):
        return "equivalent"
    word, small, _ = verdict.partition(", but equivalent")
    return f"{word}, yet equivalent" if small else word


def _difference(difference: stats.Judgement, n: int, metric: str) -> str:
    """The difference, with its own n where not every seed of the arm has a partner."""
    pairs = f" (n = {difference.n})" if difference.n != n else ""
    return labels.signed(difference.mean, metric) + labels.half_width(difference, metric) + pairs


def _paper_beside(entry: Entry, paper: Published | None) -> str:
    """The paper's figure beside a cell, and its difference to the paper's figure of the baseline."""
    value = paper_figure(entry.arm, entry.metric, paper)
    if value is None:
        return ""
    text = f"paper {labels.number(value, entry.metric)}"
    base = None if entry.baseline is None else paper_figure(entry.baseline, entry.metric, paper)
    return text if base is None or entry.is_baseline else f"{text} ({labels.signed(value - base, entry.metric)})"


def paper_figure(arm: Arm, metric: str, paper: Published | None) -> float | None:
    """What the paper prints for `arm`, if it prints this metric, and the study is about what names its figures."""
    if paper is None or metric != paper.metric or not any(key in arm.factors for key in paper.keys):
        return None
    config = flatten(next(iter(arm.runs.values())).config) if arm.runs else {}
    if paper.data and PurePosixPath(str(config.get("data.shards"))).name != paper.data:
        return None
    return paper.figure({**config, **arm.factors})


def shared_setting(arms: Sequence[Arm]) -> str:
    """What all runs of some arms have in common, and how many of them are there."""
    runs = [run for arm in arms for run in arm.runs.values()]

    def shared(read: Callable[[RunRecord], Any]) -> Any:
        first = read(runs[0])
        return first if all(read(run) == first for run in runs) else None

    images, epochs = shared(lambda run: run.data.get("train_images")), shared(lambda run: run.epochs)
    arch = shared(lambda run: option(run.config, "model.arch"))
    parts = [
        arch and labels.network_label(str(arch)),
        shared(lambda run: run.data.get("name")),
        images and f"{images:,} training images",
        epochs and f"{epochs:.4g} epochs",
        f"{len(arms)} arms",
        f"{len(runs)} of {sum(len(arm.asked) for arm in arms)} runs finished",
        f"seeds {labels.seeds_text(sorted({seed for arm in arms for seed in arm.runs}))}",
    ]
    return " · ".join(str(part) for part in parts if part)
