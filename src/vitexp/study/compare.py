"""Whether one configuration, or one state of the code, is better than another: two arms, one comparison, one answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitexp import metrics, stats
from vitexp.study.arm import Arm, instability, run_cautions
from vitexp.study.enough import Needed, needed, seeds_to_run
from vitexp.study.ledger import Look, Turn, locked, read_ledger, write_ledger
from vitexp.study.samples import sample_of
from vitexp.study.sides import Side, digest, read_sides
from vitexp.study.spec import check_difference
from vitexp.study.table import gaps

STATUSES = {"better": 0, "equivalent": 10, "worse": 20, "undecided": 30}
"""Exit statuses by verdict."""


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
    if metrics.is_share(metric):
        check_difference(margin, "--margin")
    elif margin is not None and not 0 < margin < float("inf"):
        raise ValueError(f"--margin is {margin:g}; give a difference above 0 in the unit of {metric}, such as 0.01")
    sides = read_sides(base, candidate, metric)
    first = _judged(*sides, metric, margin, such, None)
    if ledger is None:
        return first
    path = Path(ledger)
    with locked(path):
        book = read_ledger(path, candidates)
        if first.judgement is None or first.judgement.low is None:  # nothing is said, so nothing is spent
            return first
        who = sides[0].identity, sides[1].identity
        data = digest([metric, such, *(sorted(side.arm.values(metric).items()) for side in sides)])
        turn = book.turn(*who, data)
        found = _judged(*sides, metric, margin, such, turn)
        if book.note(*who, turn, Look(data, first.judgement.n, found.verdict)):
            write_ledger(path, book)
        return found


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
