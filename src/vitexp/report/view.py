"""A table in words: what every rendering of it says, before any of them sets it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from vitexp import stats
from vitexp.record import RunRecord, flatten
from vitexp.report import words
from vitexp.report.paper import Published, published
from vitexp.study.arm import Arm
from vitexp.study.table import ALL, GROUP, Entry, Label, Table, place

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


@dataclass(frozen=True, kw_only=True)
class Section:
    """One metric: a grid of cells, or a list of arms without columns; None where the study has no such arm."""

    metric: str
    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[CellView | None, ...]], ...]

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
            "mean": [cell.mean for _, cell in arms],
            "n": [cell.count.removeprefix("n = ") for _, cell in arms],
            "difference": [cell.difference for _, cell in arms],
            "verdict": [cell.verdict for _, cell in arms],
            "p (Holm)": [cell.p for _, cell in arms],
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
    sections += [_means(table, metric) for metric in config.metrics if table.means.get(metric)]
    return View(
        name=config.name,
        title=config.title or f"Study {config.name}",
        setting=shared_setting(table.arms),
        cautions=words.cautions(table.cautions),
        sections=tuple(sections),
        footnotes=footnotes(table, paper, any(_is_beside(section) for section in sections)),
    )


def _is_beside(section: Section) -> bool:
    """Whether a figure of the paper stands beside any cell."""
    return any(cell is not None and cell.paper for _, row in section.rows for cell in row)


def _section(table: Table, metric: str, paper: Published | None) -> Section:
    grid = 1 < len(table.columns) <= MOST_COLUMNS
    counts = [entry.interval.n if entry.interval else 0 for entry in table.entries[metric]]
    if grid:
        columns = tuple(words.label_text(column) for column in table.columns)
        rows = tuple((words.label_text(row), _row(table, metric, row, paper, counts)) for row in table.rows)
    else:
        columns = ()
        rows = tuple(
            (arm_label(table, entry.arm), (_cell(table, entry, paper, counts),)) for entry in table.entries[metric]
        )
    corner = ", ".join(words.key_label(key) for key, _ in table.rows[0])
    return Section(metric=metric, title=words.headline(metric, counts), corner=corner, columns=columns, rows=rows)


def _means(table: Table, metric: str) -> Section:
    """The means over data sets: a column for all of them and one for each group."""
    entries, groups = table.means[metric], table.study.config.groups
    counts = [entry.interval.n if entry.interval else 0 for entry in entries]
    places: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        kind = words.label_text(tuple((key, value) for key, value in entry.arm.factors.items() if key != GROUP))
        places.setdefault(kind or "the only arm", {})[str(entry.arm.factors[GROUP])] = entry
    sets = {ALL: sum(map(len, groups.values()))} | {name: len(members) for name, members in groups.items()}
    unit = ", %" if words.is_share(metric) else ""
    title = f"mean {words.metric_label(metric)} over data sets{unit}: ± 95 % interval, n = {words.span(counts)} seeds"
    return Section(
        metric=metric,
        title=title[0].upper() + title[1:],
        corner=", ".join(words.key_label(key) for key in entries[0].arm.factors if key != GROUP),
        columns=tuple(f"{name} ({count})" for name, count in sets.items()),
        rows=tuple(
            (kind, tuple(_cell(table, by_group[name], None, counts) for name in sets))
            for kind, by_group in places.items()
        ),
    )


def _row(
    table: Table, metric: str, row: Label, paper: Published | None, counts: Sequence[int]
) -> tuple[CellView | None, ...]:
    entries = (table.at(metric, row, column) for column in table.columns)
    return tuple(None if entry is None else _cell(table, entry, paper, counts) for entry in entries)


def _cell(table: Table, entry: Entry, paper: Published | None, counts: Sequence[int]) -> CellView:
    tuned = ", ".join(f"{words.key_label(k)} {words.value_label(k, v)}" for k, v in entry.arm.tuned.items())
    beside = _paper_beside(table, entry, paper)
    if entry.interval is None:
        return CellView(mean="no finished run", paper=beside, baseline=entry.is_baseline)
    judgement = entry.judgement
    return CellView(
        mean=words.mean(entry.interval, entry.metric),
        count=f"n = {entry.interval.n}" if len(set(counts)) > 1 else "",
        difference=_difference(judgement.difference, entry) if judgement else "",
        verdict=short_verdict(judgement.verdict) if judgement else "not compared" if entry.left_out else "",
        p=words.probability(judgement.p_holm) if judgement else "",
        tuned=tuned,
        paper=beside,
        baseline=entry.is_baseline,
    )


def arm_label(table: Table, arm: Arm) -> str:
    """An arm by its row and column."""
    row, column = place(arm, table.study.config)
    return words.label_text((*row, *column)) or "the only arm"


def short_verdict(verdict: str) -> str:
    """The verdict without the margin, which a footnote states once."""
    if verdict.startswith("equivalent"):
        return "equivalent"
    word, small, _ = verdict.partition(", but by less than")
    return f"{word}, within margin" if small else word


def _difference(difference: stats.Difference, entry: Entry) -> str:
    """The difference, with its own n where not every seed of the arm has a partner."""
    alone = entry.interval is not None and entry.interval.n != difference.n
    pairs = f" (n = {difference.n})" if alone else ""
    return words.signed(difference.mean, entry.metric) + words.half_width(difference, entry.metric) + pairs


def _paper_beside(table: Table, entry: Entry, paper: Published | None) -> str:
    """The paper's figure beside a cell, and its difference to the paper's figure of the baseline."""
    value = paper_figure(entry.arm, entry.metric, paper)
    if value is None:
        return ""
    base = None if entry.baseline is None else paper_figure(entry.baseline, entry.metric, paper)
    text = f"paper {words.number(value, entry.metric)}"
    return text if base is None or entry.is_baseline else f"{text} ({words.signed(value - base, entry.metric)})"


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
    seeds = sorted({seed for arm in arms for seed in arm.runs})
    images, epochs = _shared(runs, lambda run: run.data.get("train_images")), _shared(runs, lambda run: run.epochs)
    arch = _shared(runs, lambda run: flatten(run.config).get("model.arch"))
    parts = [
        arch and words.network_label(str(arch)),
        _shared(runs, lambda run: run.data.get("name")),
        images and f"{images:,} training images",
        epochs and f"{epochs:.4g} epochs",
        f"{len(arms)} arms",
        f"{len(runs)} of {sum(len(arm.asked) for arm in arms)} runs finished",
        f"seeds {words.seeds_text(seeds)}",
    ]
    return " · ".join(str(part) for part in parts if part)


def _shared(runs: Sequence[RunRecord], read: Callable[[RunRecord], Any]) -> Any:
    """The value that all runs have, if they have one."""
    first = read(runs[0])
    return first if all(read(run) == first for run in runs) else None


# What a reader must know to read a table: what is compared with what, how sure it is, what the paper's figures are.

LEVELS = "compare the differences, not the levels"


def footnotes(table: Table, paper: Published | None, beside: bool) -> tuple[str, ...]:
    """The sentences below a table that apply to it; `beside` says whether figures of the paper stand in it."""
    entries = [entry for part in (table.entries, table.means) for metric in part.values() for entry in metric]
    judged = [entry for entry in entries if entry.judgement is not None]
    found = [_what_means(entries)]
    if judged:
        found += [_comparison(table, judged), *_margin(table), *_power(judged)]
    if any(table.means.values()):
        found.append("A mean over data sets is taken seed by seed, and every data set counts the same in it.")
    if any(len(arm.tuned) for arm in table.arms):
        found.append(_tuning(table))
    if paper is not None:
        found.append(_paper(paper, beside))
    return (*found, *map(words.sentence, table.notes))


def _what_means(entries: Sequence[Entry]) -> str:
    text = "± is the half-width of the 95 % interval over n seeds (Student t)"
    if any(entry.interval and entry.interval.n > 1 and entry.interval.low is None for entry in entries):
        text += "; it is left out where all seeds gave the same value"
    return text + "."


def _comparison(table: Table, judged: Sequence[Entry]) -> str:
    """What the differences are to, and over how many comparisons they are corrected."""
    free = [words.key_label(key) for key in judged[0].arm.factors if key not in table.study.config.baseline]
    equal = f" at equal {' and '.join(free)}" if free else ""
    text = (
        f"◆ is the baseline: {words.label_text(baseline_label(table))}{equal}. Beside each mean: the difference "
        "to it, paired by seed, with its own 95 % interval; the verdict is at 5 % after Holm's correction over the "
        f"{words.comparisons_text(table.comparisons)} of this table"
    )
    if any(entry.judgement and entry.judgement.verdict == stats.NOT_ENOUGH for entry in judged):
        text += f" (not enough evidence: fewer than {stats.MINIMUM_SEEDS} common seeds)"
    return text + "."


def baseline_label(table: Table) -> Label:
    """The values of the baseline, those of the rows first."""
    config = table.study.config
    first = [key for key in (*config.rows, *config.columns) if key in config.baseline]
    rest = [key for key in config.baseline if key not in first]
    return tuple((key, config.baseline[key]) for key in (*first, *rest))


def _margin(table: Table) -> list[str]:
    margin = table.study.config.margin
    if margin is None:
        return []
    return [
        f"Equivalent: the true difference lies within ±{words.points(margin)} (two one-sided tests, Holm-corrected)."
    ]


def _power(judged: Sequence[Entry]) -> list[str]:
    """The smallest differences that these seeds could have shown."""
    found = []
    for metric in dict.fromkeys(entry.metric for entry in judged):
        effects = [effect for entry in judged if entry.metric == metric and (effect := _detectable(entry))]
        if effects:
            low, high = (words.number(effect, metric) for effect in (min(effects), max(effects)))
            found.append(f"{words.metric_label(metric)} {low}" + (f" to {high}" if high != low else ""))
    if not found:
        return []
    return [f"Smallest true difference that these seeds show with 80 % probability: {'; '.join(found)}."]


def _detectable(entry: Entry) -> float | None:
    judged = entry.judgement
    return judged.detectable if judged and judged.difference.n >= stats.MINIMUM_SEEDS else None


def _tuning(table: Table) -> str:
    config = table.study.config
    keys = " and ".join(words.key_label(key) for key in config.tune)
    budgets = [arm.tuning_runs for arm in table.arms]
    if all(arm.tuning_runs <= len(arm.runs) for arm in table.arms):
        return f"Each arm has one {keys}, which goes with it: none was chosen from several."
    best = words.metric_label(config.select)
    return (
        f"Each arm has the {keys} that is best for it by {best}, chosen from {words.span(budgets)} runs; test numbers "
        "of the others were not read."
    )


def paper_text(paper: Published) -> str:
    """Where the paper's figures come from and what they are."""
    return f"Paper: {paper.source}, {paper.caveat}."


def _paper(paper: Published, beside: bool) -> str:
    text = paper_text(paper)
    if beside:
        text += " In brackets its difference to the same baseline."
    if beside and not paper.data:
        text += f" Its data and scale are not ours: {LEVELS}."
    return text
