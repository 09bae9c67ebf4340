"""What a reader must know before the first number: runs that did not train, or that were not made alike."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vitexp.metrics import is_share
from vitexp.record import RunRecord
from vitexp.study.arm import Arm, name, runs_text, spelling, why_untrained

_LENGTHS: Mapping[str, Callable[[RunRecord], Any]] = {
    "steps taken": lambda run: run.steps,
    "planned steps": lambda run: run.planned_steps,
    "images seen": lambda run: run.images_seen,
}
_NEUTRAL = ("wandb", "vitexp")
"""Packages that move no number; of our own the source counts."""
_MOST_NAMES = 4
Named = list[tuple[str, RunRecord]]


def find(arms: Sequence[Arm]) -> list[str]:
    """One clause for each thing in which the finished runs behind the numbers are not what they seem."""
    return [*untrained(arms), *_impossible(arms), *_lengths(arms), *_origins(arms)]


def untrained(arms: Sequence[Arm]) -> list[str]:
    """The runs that did not train, by arm and seed, and what shows it."""
    found = [f"{run_name} ({why})" for run_name, run in _named(arms) if (why := why_untrained(run))]
    return [f"did not train, but counted: {cut(found)}"] if found else []


def _impossible(arms: Sequence[Arm]) -> list[str]:
    """Accuracies that are no share of images."""
    found = [
        f"{run_name} ({metric} {value:g})"
        for run_name, run in _named(arms)
        for metric, value in run.metrics.items()
        if is_share(metric) and not 0 <= value <= 1 and value == value
    ]
    return [f"accuracies that are no share of images between 0 and 1: {cut(found)}"] if found else []


def _lengths(arms: Sequence[Arm]) -> list[str]:
    """Steps and images that differ between runs that no setting of data or trainer tells apart."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        settings = {**arm.factors, **arm.tuned}
        length = {key: value for key, value in settings.items() if key.startswith(("data.", "trainer."))}
        groups.setdefault(spelling(length), []).append(arm)
    found = []
    for group in groups.values():
        differing = [_differing(what, _named(group), read) for what, read in _LENGTHS.items()]
        found += ["; ".join(filter(None, differing))]
    return [f"runs that should have trained equally long did not: {text}" for text in found if text]


def _origins(arms: Sequence[Arm]) -> list[str]:
    """Code, versions, devices and formats of records that differ between the runs behind the numbers."""
    runs = _named(arms)
    packages = dict.fromkeys(package for _, run in runs for package in run.versions if package not in _NEUTRAL)
    found = [
        _differing("source code", runs, source_of),
        *(_differing(f"version of {package}", runs, _version(package)) for package in packages),
        _differing("device", runs, _device),
        *_measured_on(runs),
        _differing("format of the record", runs, lambda run: run.format),
    ]
    differing = "; ".join(filter(None, found))
    return (
        [f"the runs were not made by the same code, on the same machine, with the same images: {differing}"]
        if differing
        else []
    )


def _measured_on(runs: Named) -> list[str]:
    """Runs of one data set that were measured on different images or labels."""
    sets: dict[str, Named] = {}
    for run_name, run in runs:
        sets.setdefault(str(run.data.get("name")), []).append((run_name, run))
    return [
        _differing(f"{split} images of {data}", members, partial(_order, split))
        for data, members in sets.items()
        for split in ("val", "test")
    ]


def _order(split: str, run: RunRecord) -> str | None:
    return str((run.data.get("order_fingerprints") or {}).get(split, ""))[:8] or None


def source_of(run: RunRecord) -> str | None:
    """The code that made a run: the hash of its source, or of older records the commit and whether it was changed."""
    if source := run.code.get("source"):
        return f"source {str(source)[:8]}"
    commit = run.code.get("commit")
    return f"commit {str(commit)[:7]}{' with changes' if run.code.get('dirty') else ''}" if commit else None


def _version(package: str) -> Callable[[RunRecord], str | None]:
    return lambda run: run.versions.get(package)


def _device(run: RunRecord) -> str | None:
    parts = [run.device.get("name") or run.device.get("type"), run.device.get("world_size")]
    return str(parts[0]) + (f" x {parts[1]}" if parts[1] not in (None, 1) else "") if parts[0] else None


def _differing(what: str, runs: Named, read: Callable[[RunRecord], Any]) -> str:
    """The values of one fact with the runs that have each, most common first; empty where it is the same for all."""
    held: dict[str, list[str]] = {}
    for run_name, run in runs:
        value = read(run)
        text = "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        held.setdefault(text, []).append(run_name)
    if len(held) < 2:
        return ""
    most_first = sorted(held.items(), key=lambda item: -len(item[1]))
    first, *others = most_first
    listed = [
        f"{first[0]} ({runs_text(len(first[1]))})",
        *(f"{value} ({cut(names)})" for value, names in others),
    ]
    return f"{what}: {', '.join(listed)}"


def _named(arms: Sequence[Arm]) -> Named:
    return [(f"{name(arm)} seed {seed}", run) for arm in arms for seed, run in sorted(arm.runs.items())]


def cut(names: Sequence[str]) -> str:
    """A list of runs or arms, of which the first few are named."""
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
