"""What a reader must know to read a table: what is compared with what, how sure it is, what the paper's figures are."""

from collections.abc import Sequence

from vitexp import stats
from vitexp.report import words
from vitexp.report.paper import Published
from vitexp.study.table import Entry, Label, Table

LEVELS = "compare the differences, not the levels"


def footnotes(table: Table, paper: Published | None, beside: bool) -> tuple[str, ...]:
    """The sentences below a table that apply to it; `beside` says whether figures of the paper stand in it."""
    entries = [entry for part in (table.entries, table.means) for metric in part.values() for entry in metric]
    judged = [entry for entry in entries if entry.judgement is not None]
    found = [_means(entries)]
    if judged:
        found += [_comparison(table, judged), *_margin(table), *_power(judged)]
    if any(table.means.values()):
        found.append("A mean over data sets is taken seed by seed, and every data set counts the same in it.")
    if any(len(arm.tuned) for arm in table.arms):
        found.append(_tuning(table))
    if paper is not None:
        found.append(_paper(paper, beside))
    return (*found, *map(words.sentence, table.notes))


def _means(entries: Sequence[Entry]) -> str:
    text = "± is the half-width of the 95 % interval over n seeds (Student t)"
    if any(entry.interval and entry.interval.n > 1 and entry.interval.low is None for entry in entries):
        text += "; it is left out where all seeds gave the same value"
    return text + "."


def _comparison(table: Table, judged: Sequence[Entry]) -> str:
    """What the differences are to, and over how many comparisons they are corrected."""
    free = [words.key_words(key) for key in judged[0].arm.factors if key not in table.study.config.baseline]
    equal = f" at equal {' and '.join(free)}" if free else ""
    text = (
        f"◆ is the baseline: {words.label_words(baseline_label(table))}{equal}. Beside each mean: the difference "
        "to it, paired by seed, with its own 95 % interval; the verdict is at 5 % after Holm's correction over the "
        f"{words.comparisons_words(table.comparisons)} of this table"
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
            found.append(f"{words.metric_words(metric)} {low}" + (f" to {high}" if high != low else ""))
    if not found:
        return []
    return [f"Smallest true difference that these seeds show with 80 % probability: {'; '.join(found)}."]


def _detectable(entry: Entry) -> float | None:
    judged = entry.judgement
    return judged.detectable if judged and judged.difference.n >= stats.MINIMUM_SEEDS else None


def _tuning(table: Table) -> str:
    config = table.study.config
    keys = " and ".join(words.key_words(key) for key in config.tune)
    budgets = [arm.tuning_runs for arm in table.arms]
    if all(arm.tuning_runs <= len(arm.runs) for arm in table.arms):
        return f"Each arm has one {keys}, which goes with it: none was chosen from several."
    best = words.metric_words(config.select)
    return (
        f"Each arm has the {keys} that is best for it by {best}, chosen from {words.span(budgets)} runs; test numbers "
        "of the others were not read."
    )


def paper_words(paper: Published) -> str:
    """Where the paper's figures come from and what they are."""
    return f"Paper: {paper.source}, {paper.caveat}."


def _paper(paper: Published, beside: bool) -> str:
    text = paper_words(paper)
    if beside:
        text += f" In brackets its difference to the same baseline. Its data and scale are not ours: {LEVELS}."
    return text
