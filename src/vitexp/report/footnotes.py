"""What a reader must know to read a table: what is compared with what, how sure it is, what the paper's figures are."""

from collections.abc import Iterator, Sequence
from typing import Any

from vitexp import stats
from vitexp.axes import factor_of
from vitexp.metrics import PROBE_PENALTY, is_accuracy
from vitexp.record import FOLLOW, RunRecord, option
from vitexp.report import labels
from vitexp.report.paper import Published
from vitexp.study.table import Entry, Table, primary

_RECIPE = ("model.optimizer", "model.lr", "data.batch_size")
_DRAWN = {
    "data.subset_seed": "draws its own training images",
    "data.val_seed": "holds out its own validation images and trains on others",
}
"""What varies between the runs of an arm beside initial weights and order, where these options say so."""


def footnotes(table: Table, paper: Published | None, beside: bool) -> Iterator[str]:
    """The sentences below a table that apply to it; `beside` says whether figures of the paper stand in it."""
    entries = [entry for part in (table.entries, table.means) for metric in part.values() for entry in metric]
    yield setting(table)
    yield from map(labels.sentence, about(table, entries))
    if any(entry.interval and labels.is_cut(entry.interval, entry.metric) for entry in entries):
        yield "Intervals of levels that pass 0 or 100 % are cut, and given by their ends; differences are not."
    if judged := [entry for entry in entries if entry.judgement]:
        yield _comparison(table, judged)
        if table.looks:
            after = ", ".join(map(str, table.looks.after))
            yield (
                f"Looks after {after} seeds were planned before the first run: a verdict and its interval are those of "
                "the look at which it fell, and all looks together err in at most 5 % of studies."
            )
        if table.study.config.margin is not None and any(is_accuracy(entry.metric) for entry in judged):
            yield f"Equivalent (TOST): the whole interval lies within ±{labels.points(table.study.config.margin)}."
        yield from noise(judged)
        yield from _detectable(judged)
    if any(table.means.values()):
        yield "A mean over data sets is taken seed by seed, and every data set counts the same in it."
    if any(arm.tuned for arm in table.arms):
        yield _tuning(table)
    if paper is not None:
        text = " In brackets its difference to the same baseline." if beside else ""
        if beside and not paper.data:
            text += " Its data and scale are not ours: compare the differences, not the levels."
        yield f"Paper: {paper.cited}.{text}"
    yield from map(labels.sentence, table.notes)


def _comparison(table: Table, judged: Sequence[Entry]) -> str:
    """What the differences are to, and over how many comparisons they are corrected."""
    keys, named = judged[0].arm.factors, table.study.config.baseline.keys()
    free = [labels.key_label(key) for key in keys if named.isdisjoint((key, factor_of(key)))]
    equal = f" at equal {' and '.join(free)}" if free else ""
    too_few = any(entry.judgement and entry.judgement.verdict == stats.NOT_ENOUGH for entry in judged)
    family = labels.comparisons_text(table.comparisons)
    together = f"The intervals of the {family}{_of(table)} hold together" if table.comparisons > 1 else "It holds"
    return (
        f"◆ is the baseline: {baseline_text(table)}{equal}. Beside each mean: the difference to it, paired by seed, "
        f"with its interval. {together} in 95 % of cases; better and worse: the interval excludes zero"
        + (f" (not enough evidence: fewer than {stats.MINIMUM_SEEDS} common seeds)." if too_few else ".")
    )


def _of(table: Table) -> str:
    """The metrics that verdicts are about, where others are shown too."""
    config = table.study.config
    if set(primary(config)) == set(config.metrics):
        return ""
    return f" in {' and '.join(map(labels.metric_label, primary(config)))} (the others are exploratory)"


def about(table: Table, entries: Sequence[Entry]) -> Iterator[str]:
    """What the intervals are about: these test images or images like them, and which noises that takes in."""
    held = [entry.interval for entry in entries if entry.interval and entry.interval.low is not None]
    counts = sorted({interval.images for interval in held if interval.images})
    if counts:
        images = " or ".join(f"{count:,}" for count in counts)
        yield f"± is the half-width of a 95 % interval over n seeds and {images} test images, for images like these"
    if any(not interval.images for interval in held):
        which = "" if not counts else " where answers to single images are not recorded"
        yield f"± is the half-width of a 95 % interval over n seeds, for these test images alone{which}"
    if any(entry.interval and entry.interval.n > 1 and entry.interval.low is None for entry in entries):
        yield "no interval stands where all seeds gave the same value"
    runs = [run for arm in table.arms for run in arm.runs.values()]
    for key, words in _DRAWN.items():
        if FOLLOW in (found := {option(run.config, key) for run in runs}):
            yield f"each seed {words}" + (f", where {key} is {FOLLOW}" if len(found) > 1 else "")


def noise(judged: Sequence[Entry]) -> Iterator[str]:
    """Which noise is behind the intervals of the differences, whether pairing helps, and what would narrow them."""
    known = [one.judgement for one in judged if one.judgement and one.judgement.variance]
    parts = [one.variance for one in known if one.variance and one.variance.count]
    if parts:
        images = 100 * sum(part.images / part.total for part in parts) / len(parts)
        both = min(100 - images, 100 * sum(part.rest / part.total for part in parts) / len(parts))
        more = "more test images" if images > 50 else "more seeds"
        yield (
            f"Of the variance of the differences {images:.0f} % is due to the test images and {100 - images:.0f} % to "
            f"seeds ({both:.0f} % to both together): {more} would narrow the intervals most."
        )
    if gains := [one.gain for one in known if one.gain]:
        gain = sum(gains) / len(gains)
        yield (
            f"Pairing by seed divides the seeds' variance of a difference by {gain:.2f}"
            + ("." if gain > 1 else ", so it does not help here.")
        )


def baseline_text(table: Table) -> str:
    """The values of the baseline, those of the rows first."""
    config = table.study.config
    keys = dict.fromkeys(key for key in (*config.rows, *config.columns, *config.baseline) if key in config.baseline)
    return labels.label_text(tuple((key, config.baseline[key]) for key in keys))


def _detectable(judged: Sequence[Entry]) -> Iterator[str]:
    """The smallest differences that these seeds could have shown, metric by metric, and how well that is known."""
    effects: dict[str, list[tuple[float, float, float]]] = {}
    for entry in judged:
        found = entry.judgement
        if found and found.detectable and found.detectable_range:
            effects.setdefault(entry.metric, []).append((found.detectable, *found.detectable_range))
    shown = []
    for metric, sizes in effects.items():
        middles, lows, highs = zip(*sizes, strict=True)
        ends = [labels.number(size, metric) for size in (min(middles), max(middles), min(lows), max(highs))]
        text = " to ".join(dict.fromkeys(ends[:2]))
        shown.append(f"{labels.metric_label(metric)} {text} (as far as so few seeds know: {ends[2]} to {ends[3]})")
    if shown:
        yield f"Minimum detectable effect at 80 % power: {'; '.join(shown)}."


def _tuning(table: Table) -> str:
    keys = " and ".join(map(labels.key_label, table.study.config.tune))
    if all(arm.tuning_runs <= len(arm.runs) for arm in table.arms):
        return f"Each arm has one {keys}, which goes with it: none was chosen from several."
    best, budgets = labels.metric_label(table.study.config.select), [arm.tuning_runs for arm in table.arms]
    return (
        f"Each arm has the {keys} that is best for it by {best}, chosen from {labels.span(budgets)} runs over "
        f"{_grids(table)}; test numbers of the others were not read."
    )


def _grids(table: Table) -> str:
    """The values that were tried of each tuned factor, and whether in every arm."""
    found = []
    for key in table.study.config.tune:
        grids = [[labels.value_label(key, value) for value in arm.grids.get(key, ())] for arm in table.arms]
        values = dict.fromkeys(value for grid in grids for value in grid)
        some = "" if all(set(grid) == set(values) for grid in grids) else " (not all in every arm)"
        found.append(f"{labels.key_label(key)} {', '.join(values)}{some}")
    return "; ".join(found)


# The footnote "Setting": what a reviewer asks of a table, from its records, in one line.


def setting(table: Table) -> str:
    """Seeds, spread, test images, recipe, probe, tuned values, compute, commit, data and device; what is not recorded
    is left out."""
    runs = [run for arm in table.arms for run in arm.runs.values()]
    return f"Setting: {'; '.join(part for part in _parts(table, runs) if part)}."


def _parts(table: Table, runs: list[RunRecord]) -> Iterator[str]:
    metrics = table.entries
    yield f"n = {labels.span([len(arm.runs) for arm in table.arms])} seeds"
    yield _named("", [run.data.get("test_images") for run in runs], " test images")
    yield from (_spread(table, metric) for metric in metrics)
    for key in _RECIPE:
        values = [option(run.config, key) for run in runs if key not in table.study.config.tune]
        yield _named(f"{labels.key_label(key)} ", [v if v is None else labels.value_label(key, v) for v in values])
    if any(metric.startswith("fewshot_") for metric in metrics):
        draws = _named(", ", [option(run.config, "run.shot_seeds") for run in runs], " draws of the images")
        yield f"linear probe with L2 penalty {PROBE_PENALTY:g}{draws}"
    for key in table.study.config.tune:
        yield _named(f"tuned {labels.key_label(key)} ", [arm.tuned.get(key) for arm in table.arms])
    yield _compute(runs)
    yield _named("commit ", [commit(run) for run in runs])
    yield _named("data ", [_known(run.data, "name", "shards_fingerprint") for run in runs])
    yield _named("device ", [_known(run.device, "type", "name") for run in runs])
    yield _named("precision ", [run.device.get("precision") for run in runs])


def _spread(table: Table, metric: str) -> str:
    """The smallest and the largest standard deviation over seeds of an arm."""
    samples = [list(values.values()) for arm in table.arms if (values := arm.values(metric))]
    spreads = [sd for sample in samples if (sd := stats.mean_and_sd(sample)[1])]
    known = [labels.number(end, metric) for end in (min(spreads), max(spreads))] if spreads else []
    return f"SD over seeds {' to '.join(dict.fromkeys(known))} ({labels.metric_label(metric)})" if known else ""


def _named(before: str, values: list[Any], after: str = "") -> str:
    """The distinct values that are recorded, five at most."""
    known = list(dict.fromkeys(f"{v:,}" if isinstance(v, int) else str(v) for v in values if v not in (None, "")))
    more = f" and {len(known) - 5} more" if len(known) > 5 else ""
    return f"{before}{' or '.join(known[:5])}{more}{after}" if known else ""


def _compute(runs: list[RunRecord]) -> str:
    known = [run.train_flops for run in runs if run.train_flops]
    ends = dict.fromkeys(f"{value / 1e12:.3g}" for value in (min(known), max(known))) if known else {}
    return f"{' to '.join(ends)} TFLOP a run" if ends else ""


def commit(run: RunRecord) -> str:
    """The first digits of the commit, with a sign where files were changed since; empty where it is not known."""
    return str(run.code.get("commit") or "")[:7] + "+" * bool(run.code.get("dirty"))


def _known(facts: dict[str, Any], *names: str) -> str:
    return " ".join(str(facts[name]) for name in names if facts.get(name))
