"""The two sides of a comparison: which runs they are, in what they differ, and whether they can be compared."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path

from vitexp import metrics, stats
from vitexp.record import RECORD_NAME, RunRecord, cell_fingerprint, digest, read_records, result_config
from vitexp.study.arm import Arm, cut, differing_keys, name
from vitexp.study.cells import SEED
from vitexp.study.comparison import other_images
from vitexp.study.select import Runs, Selection, found_study, read_sweep, select
from vitexp.study.spec import Study
from vitexp.study.trained import finished_runs
from vitexp.study.tune import tune

SOURCE = "code.source"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: as it was named, its runs, and a digest of its configuration and source code."""

    given: str
    arm: Arm
    identity: str
    damaged: tuple[str, ...] = ()

    @property
    def run(self) -> RunRecord:
        """One of its runs, to read from what all have in common."""
        return self.arm.runs[min(self.arm.runs)]


def _side(given: str) -> Side:
    study, runs = _read(given)
    selection = select(study, runs)
    selection = tune(selection) if len(selection.arms) > 1 else selection
    arm = _only_arm(given, selection)
    _check_seeds(given, arm, runs.records if isinstance(runs, Runs) else read_records(runs / study.name)[0])
    sources = {_source(run): seed for seed, run in arm.runs.items()}
    if len(sources) > 1:
        held = ", ".join(f"{source} (such as seed {seed})" for source, seed in sources.items())
        raise ValueError(
            f"the runs of {given} were made by different source code, {held}; run all seeds by one of them"
        )
    run = arm.runs[min(arm.runs)]
    identity = digest([cell_fingerprint(run.config), *sources])
    return Side(given=given, arm=arm, identity=identity, damaged=selection.damaged)


def _source(run: RunRecord) -> str:
    """8 digits of the source code, or of the commit in old records, that made a run."""
    return str(run.code.get("source") or run.code.get("commit"))[:8]


def _read(given: str) -> tuple[Study, Path | Runs]:
    """The study behind an argument, and where its runs are."""
    if given.startswith("wandb:"):
        return read_sweep(given.removeprefix("wandb:"))
    path = Path(given)
    folder = (path.parent if path.name == RECORD_NAME else path).resolve()
    if (folder / RECORD_NAME).is_file():
        raise ValueError(
            f"{given} is one run, and arms are compared over seeds; give the folder of its arm, {folder.parent}"
        )
    if not folder.is_dir():
        raise ValueError(
            f"{given} is no folder; give that of an arm (runs/STUDY/CELL), of a study with one arm, or "
            "wandb:ENTITY/PROJECT/SWEEP"
        )
    return found_study(folder), folder.parent


def _only_arm(given: str, selection: Selection) -> Arm:
    """Raises: ValueError unless there is one arm, with a finished run."""
    if len(selection.arms) != 1:
        names = cut([name(arm) for arm in selection.arms], 3, "; ")
        raise ValueError(f"{given} holds {len(selection.arms)} arms ({names}); give the folder of one of them")
    (arm,) = selection.arms
    if not arm.runs:
        why = "; ".join(f"seed {seed} {why}" for seed, why in arm.unfinished.items())
        raise ValueError(f"{given} holds no finished run ({why}); run it first")
    return arm


def _check_seeds(given: str, arm: Arm, records: Sequence[RunRecord]) -> None:
    """Raises: ValueError for a seed with several finished runs."""
    wanted = {run.fingerprint for run in arm.runs.values()}
    times = Counter(run.seed for run in finished_runs(records) if run.fingerprint in wanted)
    if twice := sorted(seed for seed, often in times.items() if often > 1):
        seeds = ", ".join(map(str, twice))
        raise ValueError(f"{given} holds several finished runs of seed {seeds}; leave the one there that counts")


def read_sides(base: str, candidate: str, metric: str) -> tuple[Side, Side]:
    """Both sides, with what they differ in as the factors of their arms.

    Raises: ValueError for a side that is no single arm, and for two that cannot be compared in this metric.
    """
    metrics.better(metric, "--metric")
    sides = _named(_side(base), _side(candidate))
    _check(*sides, metric)
    return sides


def _named(*sides: Side) -> tuple[Side, Side]:
    settings = [result_config(side.run.config) | {SOURCE: _source(side.run)} for side in sides]
    keys = [key for key in differing_keys(settings) if key != SEED]
    base, candidate = (
        replace(side, arm=replace(side.arm, factors={key: held.get(key) for key in keys}))
        for side, held in zip(sides, settings, strict=True)
    )
    return base, candidate


def _check(base: Side, candidate: Side, metric: str) -> None:
    """Raises: ValueError for sides that are one, have no such metric or no seed in common, or saw other images."""
    if base.identity == candidate.identity:
        raise ValueError(
            f"{base.given} and {candidate.given} are one configuration, run by one source: nothing to compare"
        )
    for side in (base, candidate):
        if not side.arm.values(metric):
            held = sorted({one for run in side.arm.runs.values() for one in run.metrics})
            raise ValueError(
                f"no finished run of {side.given} holds {metric}; they hold {', '.join(held) or 'nothing'}"
            )
    common = base.arm.runs.keys() & candidate.arm.runs.keys()
    if len(common) < 2:
        todo = seeds_text(base, candidate, seeds_to_run(base.arm.runs, candidate.arm.runs, stats.MINIMUM_SEEDS))
        few = "one seed" if common else "no seed"
        raise ValueError(f"the two have {few} in common, and runs are compared in pairs; run {todo}")
    for seed in sorted(common):
        if text := other_images(base.arm.runs[seed], candidate.arm.runs[seed], metric):
            raise ValueError(
                f"the two were not measured on the same images (seed {seed}: {text}); measure them on one set"
            )


def seeds_to_run(base: Collection[int], candidate: Collection[int], total: int) -> tuple[list[int], list[int]]:
    """The seeds that either side still has to run until both have `total` in common: first those that one has."""
    common, either = set(base) & set(candidate), set(base) | set(candidate)
    more = chain(sorted(either - common), count(max(either, default=-1) + 1))
    chosen = list(islice(more, max(0, total - len(common))))
    return [seed for seed in chosen if seed not in base], [seed for seed in chosen if seed not in candidate]


def seeds_text(base: Side, candidate: Side, seeds: tuple[Sequence[int], Sequence[int]]) -> str:
    """The seeds of each side in words."""
    parts = zip((candidate, base), reversed(seeds), strict=True)
    return " and ".join(f"{'seeds' if one[1:] else 'seed'} {_span(one)} of {side.given}" for side, one in parts if one)


def _span(seeds: Sequence[int]) -> str:
    whole = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def differences(base: Side, candidate: Side) -> dict[str, tuple[object, object]]:
    """The settings in which the sides differ: base, candidate."""
    pairs = base.arm.factors, candidate.arm.factors
    return {key: (value, pairs[1].get(key)) for key, value in pairs[0].items()}
