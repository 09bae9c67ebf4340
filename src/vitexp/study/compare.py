"""Whether one configuration, or one state of the code, is better than another: two arms, one comparison, one answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitexp import metrics, stats
from vitexp.record import digest
from vitexp.stats.planning import seeds_and_images
from vitexp.study.arm import instability, run_cautions
from vitexp.study.ledger import Look, Turn, locked, read_ledger, write_ledger
from vitexp.study.samples import sample_of, unsound_answers
from vitexp.study.sides import Side, read_sides, seeds_to_run
from vitexp.study.spec import check_difference
from vitexp.study.table import gaps

STATUSES = {"better": 0, "equivalent": 10, "worse": 20, "undecided": 30}
"""Exit statuses by verdict."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The candidate against the base in one metric. `judgement` is absent where the runs that trained share no seed."""

    base: Side
    candidate: Side
    metric: str
    margin: float | None
    such: bool
    turn: Turn | None
    judgement: stats.Judgement | None
    cautions: tuple[str, ...]

    @property
    def level(self) -> float:
        """That at which it is judged."""
        return self.turn.level if self.turn else stats.ALPHA

    @property
    def verdict(self) -> str:
        """A difference that is shown comes first; `is_equivalent` says whether it is too small to matter."""
        word = self.judgement.verdict.replace(",", "").split()[0] if self.judgement else ""
        return word if word in STATUSES else "undecided"

    @property
    def is_equivalent(self) -> bool:
        """Whether the interval lies within the margin."""
        return self.judgement is not None and self.judgement.is_within(self.margin)

    @property
    def why(self) -> str:
        """Why it is undecided; empty where it is not."""
        judged = self.judgement
        if self.verdict != "undecided":
            return ""
        if unstable := _unstable(self.base, self.candidate):
            return f"unstable: {' and '.join(unstable)}"
        if judged is None:
            return "the runs that trained have no seed in common"
        if judged.low is not None:
            return "the interval holds zero" + (" and leaves the margin" if self.margin else "")
        if judged.verdict == stats.NOT_ENOUGH:
            return f"{judged.n} seeds in common, and a verdict takes {stats.MINIMUM_SEEDS}"
        return "the runs do not differ from seed to seed, so nothing says how sure the difference is"

    @property
    def effect(self) -> float:
        """The difference that `need` is about: the margin, or without one that which was observed."""
        return self.margin or abs(self.judgement.mean if self.judgement else 0.0)

    @property
    def need(self) -> tuple[int | None, int | None] | None:
        """Seeds in common, and test images where more are needed, that would decide an undecided one."""
        judged = self.judgement
        if self.verdict != "undecided" or judged is None or judged.variance is None:
            return None
        return seeds_and_images(
            judged.variance, judged.n, self.effect, self.turn.next_level if self.turn else self.level
        )

    @property
    def to_run(self) -> tuple[Sequence[int], Sequence[int]]:
        """The seeds of the base and of the candidate that would."""
        few = self.judgement is not None and self.judgement.verdict == stats.NOT_ENOUGH
        total = self.need[0] if self.need else stats.MINIMUM_SEEDS if few else 0
        return seeds_to_run(self.base.arm.values(self.metric), self.candidate.arm.values(self.metric), total or 0)


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
    both = [base.arm, candidate.arm]
    samples = [sample_of(arm, metric, such) for arm in both]
    asked = stats.Asked(
        contrast=stats.Contrast(weights={samples[1]: 1.0, samples[0]: -1.0}),
        margin=margin,
        higher_is_better=metrics.higher_is_better(metric),
        unstable=bool(_unstable(base, candidate)),
    )
    level = turn.level if turn else stats.ALPHA
    judgement = stats.judge({"": asked}, images=such, alpha=level)[""] if asked.contrast.seeds else None
    # other source code is what is compared, and each side has one: nothing to caution against
    bare = [replace(arm, runs={seed: replace(run, code={}) for seed, run in arm.runs.items()}) for arm in both]
    cautions = [*run_cautions(bare), *gaps(both, [metric])]
    cautions += unsound_answers(both, [metric]) if such else []
    cautions += [f"left out: {text}" for side in (base, candidate) for text in side.damaged]
    if such and judgement and judgement.low is not None and not judgement.images:
        cautions.append("answers to the single images are not known of all runs, so the interval is over seeds alone")
    return Compared(
        base=base, candidate=candidate, metric=metric, margin=margin, such=such, turn=turn, judgement=judgement,
        cautions=tuple(cautions),
    )  # fmt: skip


def _unstable(*sides: Side) -> list[str]:
    return [f"{text} of {side.given}" for side in sides if (text := instability(side.arm))]
