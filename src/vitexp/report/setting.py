"""The footnote "Setting": what a reviewer asks of a table, from its records, in one line."""

from collections.abc import Iterator
from typing import Any

from vitexp import stats
from vitexp.metrics import PROBE_PENALTY
from vitexp.record import RunRecord, option
from vitexp.report import labels
from vitexp.study.table import Table

_RECIPE = ("model.optimizer", "model.lr", "data.batch_size")


def setting(table: Table) -> str:
    """Seeds, spread, test images, recipe, probe, tuned values, compute, commit, data and device; what is not recorded
    is left out."""
    runs = [run for arm in table.arms for run in arm.runs.values()]
    return f"Setting: {'; '.join(part for part in _parts(table, runs) if part)}."


def _parts(table: Table, runs: list[RunRecord]) -> Iterator[str]:
    metrics = table.study.config.metrics
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
    yield _named("data ", [_of(run.data, "name", "shards_fingerprint") for run in runs])
    yield _named("device ", [_of(run.device, "type", "name") for run in runs])
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


def _of(facts: dict[str, Any], *names: str) -> str:
    return " ".join(str(facts[name]) for name in names if facts.get(name))
