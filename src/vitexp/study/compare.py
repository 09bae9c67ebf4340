"""Whether one configuration, or one state of the code, is better than another: two arms, one comparison, one answer."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitexp import metrics, stats
from vitexp.record import RECORD_NAME, RunRecord, cell_fingerprint, read_records, result_config
from vitexp.study.arm import Arm, cut, differing_keys, instability, name, run_cautions
from vitexp.study.cells import SEED
from vitexp.study.enough import Needed, needed, seeds_to_run
from vitexp.study.ledger import Look, Turn, locked, read_ledger, write_ledger
from vitexp.study.samples import sample_of
from vitexp.study.select import Runs, Selection, found_study, read_sweep, select
from vitexp.study.spec import Study
from vitexp.study.table import gaps
from vitexp.study.trained import finished_runs
from vitexp.study.tune import tune

STATUSES = {"better": 0, "equivalent": 10, "worse": 20, "undecided": 30}
"""Exit statuses by verdict."""
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


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The candidate against the base in one metric. `judgement` is absent where the runs that trained share no seed.

    `why` says why an undecided comparison is undecided, `need` and `to_run` (base, candidate) what would decide it.
    """

    base: Side
    candidate: Side
    metric: str
    margin: float | None
    such: bool
    level: float
    turn: Turn | None
    judgement: stats.Judgement | None
    why: str
    need: Needed | None
    to_run: tuple[Sequence[int], Sequence[int]]
    cautions: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """A difference that is shown comes first; `is_equivalent` says whether it is too small to matter."""
        return _word(self.judgement, self.margin, self.metric)

    @property
    def is_equivalent(self) -> bool:
        """Whether the interval lies within the margin."""
        return self.judgement is not None and self.judgement.is_within(self.margin)


def compare(
    base: str,
    candidate: str,
    *,
    metric: str = "test_acc",
    margin: float | None = None,
    such: bool = True,
    ledger: str | Path | None = None,
    candidates: int | None = None,
) -> Compared:
    """Compares two arms: folders of runs, or `wandb:ENTITY/PROJECT/SWEEP`.

    `such` asks about images like the test images, else about exactly these. With `ledger` the level is the candidate's
    share of a campaign's error, of `candidates` in all where that is fixed ahead.
    Raises: ValueError for sides that cannot be compared.
    """
    if candidates is not None and ledger is None:
        raise ValueError("--candidates is how many a campaign tries, which its ledger counts; give --ledger FILE too")
    if margin is not None and not 0 < margin < float("inf"):
        raise ValueError(f"--margin is {margin:g}; give a difference above 0 in the unit of {metric}, such as 0.01")
    sides = _named(_side(base), _side(candidate))
    _check(*sides, metric)
    first = _judged(*sides, metric, margin, such, None)
    if ledger is None:
        return first
    path = Path(ledger)
    with locked(path):
        book = read_ledger(path, candidates)
        if first.judgement is None or first.judgement.low is None:  # nothing is said, so nothing is spent
            return first
        who = sides[0].identity, sides[1].identity
        data = _digest([metric, such, *(sorted(side.arm.values(metric).items()) for side in sides)])
        turn = book.turn(*who, data)
        found = _judged(*sides, metric, margin, such, turn)
        if book.note(*who, turn, Look(data, first.judgement.n, found.verdict)):
            write_ledger(path, book)
        return found


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
    identity = _digest([cell_fingerprint(run.config), *sources])
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
    if twice := sorted(seed for seed, count in times.items() if count > 1):
        seeds = ", ".join(map(str, twice))
        raise ValueError(f"{given} holds several finished runs of seed {seeds}; leave the one there that counts")


def _named(*sides: Side) -> tuple[Side, Side]:
    """The sides with what they differ in as the factors of their arms."""
    settings = [result_config(side.run.config) | {SOURCE: _source(side.run)} for side in sides]
    keys = [key for key in differing_keys(settings) if key != SEED]
    base, candidate = (
        replace(side, arm=replace(side.arm, factors={key: held.get(key) for key in keys}))
        for side, held in zip(sides, settings, strict=True)
    )
    return base, candidate


def _check(base: Side, candidate: Side, metric: str) -> None:
    """Raises: ValueError for sides that are one, have no such metric or no seed in common, or saw other images."""
    metrics.better(metric, "--metric")
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
        if text := _other_images(base.arm.runs[seed], candidate.arm.runs[seed], metric):
            raise ValueError(
                f"the two were not measured on the same images (seed {seed}: {text}); measure them on one set"
            )


def seeds_text(base: Side, candidate: Side, seeds: tuple[Sequence[int], Sequence[int]]) -> str:
    """The seeds of each side in words."""
    parts = zip((candidate, base), reversed(seeds), strict=True)
    return " and ".join(f"{'seeds' if one[1:] else 'seed'} {_span(one)} of {side.given}" for side, one in parts if one)


def _span(seeds: Sequence[int]) -> str:
    whole = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _other_images(one: RunRecord, other: RunRecord, metric: str) -> str:
    """In what the images differ that two runs were measured on; empty where they do not, as far as is known."""
    split = metrics.split_of(metric) or "test"
    orders = [
        str(run.answers.get(metric, {}).get("order") or (run.data.get("order_fingerprints") or {}).get(split, ""))[:12]
        for run in (one, other)
    ]
    if all(orders):
        return "" if orders[0] == orders[1] else f"{split} images {orders[0]} and {orders[1]}"
    pairs = {key: (one.data.get(key), other.data.get(key)) for key in ("name", "classes", f"{split}_images")}
    return next((f"{key} {a} and {b}" for key, (a, b) in pairs.items() if a != b), "")


def _judged(base: Side, candidate: Side, metric: str, margin: float | None, such: bool, turn: Turn | None) -> Compared:
    level = turn.level if turn else stats.ALPHA
    arms = candidate.arm, base.arm
    samples = [sample_of(arm, metric, such) for arm in arms]
    contrast = stats.Contrast(weights={samples[0]: 1.0, samples[1]: -1.0})
    unstable = [f"{text} of {side.given}" for side in (base, candidate) if (text := instability(side.arm))]
    asked = stats.Asked(contrast=contrast, margin=margin, unstable=bool(unstable))
    judgement = stats.judge({"": asked}, images=such, alpha=level)[""] if contrast.seeds else None
    both = [base.arm, candidate.arm]
    cautions = [*run_cautions(list(map(_without_code, both))), *gaps(both, [metric])]
    cautions += [f"left out: {text}" for side in (base, candidate) for text in side.damaged]
    if such and judgement and judgement.low is not None and not judgement.images:
        cautions.append("answers to the single images are not known of all runs, so the interval is over seeds alone")
    bare = Compared(
        base=base, candidate=candidate, metric=metric, margin=margin, such=such, level=level, turn=turn,
        judgement=judgement, why="", need=None, to_run=((), ()), cautions=tuple(cautions),
    )  # fmt: skip
    return _with_need(bare, unstable) if bare.verdict == "undecided" else bare


def _without_code(arm: Arm) -> Arm:
    """Other source code is what is compared, and each side has one: nothing to caution against."""
    return replace(arm, runs={seed: replace(run, code={}) for seed, run in arm.runs.items()})


def _with_need(found: Compared, unstable: Sequence[str]) -> Compared:
    """An undecided comparison with the reason, and with what would decide it."""
    judged = found.judgement
    if unstable:
        return replace(found, why=f"unstable: {' and '.join(unstable)}")
    if judged is None:
        return replace(found, why="the runs that trained have no seed in common")
    need = None
    if judged.variance is None and judged.n < stats.MINIMUM_SEEDS:
        why, total = f"{judged.n} seeds in common, and a verdict takes {stats.MINIMUM_SEEDS}", stats.MINIMUM_SEEDS
    elif judged.variance is None or judged.low is None:
        return replace(
            found, why="the runs do not differ from seed to seed, so nothing says how sure the difference is"
        )
    else:
        level = found.turn.next_level if found.turn else found.level
        need = needed(judged.variance, judged.n, found.margin or abs(judged.mean), level)
        why, total = "the interval holds zero" + (" and leaves the margin" if found.margin else ""), need.seeds or 0
    base, candidate = (side.arm.values(found.metric) for side in (found.base, found.candidate))
    return replace(found, why=why, need=need, to_run=seeds_to_run(base, candidate, total))


def _word(judged: stats.Judgement | None, margin: float | None, metric: str) -> str:
    if judged is None or judged.low is None:
        return "undecided"
    if judged.is_different:
        return "better" if (judged.mean > 0) == metrics.higher_is_better(metric) else "worse"
    return "equivalent" if judged.is_within(margin) else "undecided"


def differences(found: Compared) -> dict[str, tuple[object, object]]:
    """The settings in which the sides differ: base, candidate."""
    pairs = found.base.arm.factors, found.candidate.arm.factors
    return {key: (value, pairs[1].get(key)) for key, value in pairs[0].items()}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
