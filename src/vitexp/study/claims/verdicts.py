"""What our runs say about each claim of the paper: supported, contradicted, or not to be decided with them.

The contrasts that one study gives to one claim, in every metric and at every combination of its other factors, are one
family, judged by simultaneous intervals like those of a table. Only accuracies are judged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.record import RECORD_NAME, RunRecord, flatten, run_directory
from vitexp.study.arm import Arm, cut, instability, is_number, name, untrained
from vitexp.study.claims.claims import CLAIMS, PAPERS_DATA, PAPERS_NETWORK
from vitexp.study.claims.findings import Claim, Contrast, Expected, Finding, by_values
from vitexp.study.comparison import Comparisons, why_not
from vitexp.study.select import Root, Selection, found_study, select, study_folders
from vitexp.study.spec import Study, read_study
from vitexp.study.table import Entry, check_finished, judged_entries
from vitexp.study.trained import at_chance, chance_of
from vitexp.study.tune import tune

SUPPORT, CONTRADICT, UNDECIDED = "supports", "contradicts", "cannot decide"
DIFFER = "differs from the paper here"
"""What contradicts the paper in runs that were not made as the paper's were."""
ALPHA = stats.ALPHA
CEILING = 0.99
"""Mean accuracy from which on all arms are as good as can be distinguished."""
FEWEST_STEPS = 100
"""Optimizer steps from scratch below which a network is at the start of its training."""
_WAITS = "the seeds of the first planned look are not all there"
RISING = 0.05
"""Gain in validation accuracy over the last quarter of the steps from which on a training has not come to its end."""


@dataclass(frozen=True)
class Judged:
    """A contrast with its statistics and what it says by itself."""

    contrast: Contrast
    judgement: stats.Judgement
    verdict: str
    in_table: stats.Judgement | None = None
    """The same two arms in the study's table, whose intervals hold together over other comparisons"""


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """What one study says to one claim in one metric, at one combination of its other factors."""

    claim: Claim
    selection: Selection
    metric: str
    finding: Finding
    judged: tuple[Judged, ...]
    objection: str

    @property
    def verdict(self) -> str:
        """A claim falls with any of its contrasts, and stands with all of them."""
        verdicts = {one.verdict for one in self.judged}
        fallen = verdicts & {CONTRADICT, DIFFER}
        return fallen.pop() if fallen else SUPPORT if verdicts == {SUPPORT} else UNDECIDED

    @property
    def study(self) -> Study:
        """The study that says it."""
        return self.selection.study

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """The runs behind it, each once."""
        return tuple({id(run): run for arm in self.finding.arms for run in arm.runs.values()}.values())

    def path_of(self, run: RunRecord) -> str:
        """Where a run's record lies, or else where the runs of its study do."""
        folder = Path(self.selection.location)
        path = run_directory(folder.parent, folder.name, run.cell, run.seed) / RECORD_NAME
        return str(path) if path.is_file() else self.selection.location


@dataclass(frozen=True, kw_only=True)
class ClaimsReport:
    """All verdicts in the order of the claims, the studies that gave none, and the folders that could not be read."""

    verdicts: tuple[ClaimVerdict, ...]
    studies: tuple[str, ...]
    untouched: tuple[str, ...]
    unread: tuple[str, ...]

    def of(self, claim: Claim) -> tuple[ClaimVerdict, ...]:
        """The verdicts on one claim."""
        return tuple(one for one in self.verdicts if one.claim is claim)


def judge_claims(
    paths: Sequence[str | Path] = (), root: str | Path = "runs", read: Sequence[tuple[Study, Root]] = ()
) -> ClaimsReport:
    """The verdicts on the sweep files and folders in `paths`, and of the runs in `read`, which lie elsewhere.

    Without either it is that of every study below `root`.

    Raises: ValueError for a path that is neither, a sweep file that is not sound, and where there is no run at all.
    """
    found: list[tuple[str, list[ClaimVerdict]]] = []
    unread = []
    known: list[tuple[Study | Path, Root]] = [*_studies(paths if paths or read else [root], Path(root)), *read]
    for one, runs in known:
        try:
            study = one if isinstance(one, Study) else found_study(one)
            found.append((study.name, read_verdicts(study, runs)))
        except ValueError as error:
            unread.append(str(error))
    if not found:
        raise ValueError("; ".join(unread))
    return ClaimsReport(
        verdicts=tuple(one for claim in CLAIMS for _, verdicts in found for one in verdicts if one.claim is claim),
        studies=tuple(name for name, _ in found),
        untouched=tuple(name for name, verdicts in found if not verdicts),
        unread=tuple(unread),
    )


def _studies(paths: Sequence[str | Path], root: Path) -> list[tuple[Study | Path, Path]]:
    """Every study once, by its sweep file or else by the folder of its runs, and the folder above the runs."""
    found: dict[Path, tuple[Study | Path, Path]] = {}
    for path in map(Path, paths):
        if path.is_file():
            study = read_study(path)
            found[(root / study.name).resolve()] = (study, root)
            continue
        folders = study_folders(path)
        if not folders:
            raise ValueError(
                f"{path} holds no run; run a study first, such as `vitexp sweep sweeps/pos_embed.yaml`, or name a "
                "sweep file or a folder of runs"
            )
        for folder in folders:
            found.setdefault(folder.resolve(), (folder, folder.parent))
    return list(found.values())


def read_verdicts(study: Study, root: Root) -> list[ClaimVerdict]:
    """What the runs of one study in `root` say.

    Raises: ValueError when none is finished, or they do not belong together.
    """
    selection = tune(select(study, root))
    check_finished(selection)
    entries = judged_entries(selection)
    return [verdict for claim in CLAIMS for verdict in _judge(claim, selection, entries)]


def _judge(claim: Claim, selection: Selection, entries: Sequence[Entry]) -> Iterator[ClaimVerdict]:
    """One claim in one study: all of its contrasts are judged as a family; `entries` are those of the study's table."""
    study, arms, looks = selection.study, selection.arms, selection.looks
    found = [
        (metric, finding)
        for metric in filter(claim.is_about, filter(is_accuracy, study.config.metrics))
        for finding in claim.find(claim, [arm for arm in arms if arm.values(metric)], metric, study)
    ]
    margin = study.config.margin if claim.unit == "accuracy" else None
    family = {
        id(contrast): stats.Asked(
            contrast=contrast.contrast, margin=margin, unstable=any(map(instability, contrast.arms))
        )
        for _, finding in found
        for contrast in finding.contrasts
    }
    images = study.config.images == "such"
    judgements = stats.judge(family, images=images)
    looked = stats.decide(family, looks.seeds, looks.after, images=images) if looks else {}
    judgements |= {key: one.judgement for key, one in looked.items()}
    for metric, finding in found:
        waits = looks and not all(id(contrast) in looked for contrast in finding.contrasts)
        objection = _objections(claim, study, finding, metric, arms, _WAITS if waits else "")
        otherwise = CONTRADICT if is_papers_protocol(claim, finding.arms) else DIFFER
        judged = []
        for contrast in finding.contrasts:
            judgement = judgements[id(contrast)]
            verdict = UNDECIDED if objection else verdict_of(contrast.expected, judgement, margin)
            verdict = otherwise if verdict == CONTRADICT else verdict
            judged.append(Judged(contrast, judgement, verdict, _in_table(contrast, metric, entries)))
        yield ClaimVerdict(
            claim=claim, selection=selection, metric=metric, finding=finding, judged=tuple(judged), objection=objection
        )


def _in_table(contrast: Contrast, metric: str, entries: Sequence[Entry]) -> stats.Judgement | None:
    """The same two arms in the study's table, in whichever order; None where it does not compare them."""
    sides = set(map(id, contrast.arms))
    pairs = (one for one in entries if one.metric == metric and {id(one.arm), id(one.baseline)} == sides)
    return next((one.judgement for one in pairs if len(sides) == 2), None)


def verdict_of(expected: Expected, judgement: stats.Judgement, margin: float | None) -> str:
    """One contrast against what the claim expects of it.

    Alike is only what was shown to lie within the margin; a difference counts in the direction in which it was shown.
    """
    if expected == "alike":
        return SUPPORT if judgement.is_within(margin) else CONTRADICT if judgement.is_different else UNDECIDED
    if judgement.is_different:
        return SUPPORT if (judgement.mean < 0) == (expected == "lower") else CONTRADICT
    return CONTRADICT if judgement.is_within(margin) else UNDECIDED


def is_papers_protocol(claim: Claim, arms: Sequence[Arm]) -> bool:
    """Whether all runs are of the data and the networks that the paper's statement is about."""
    runs = [run for arm in arms for run in arm.runs.values()]
    data = {re.sub("[^a-z0-9]", "", str(run.data.get("name")).lower()) for run in runs}
    networks = {str(flatten(run.config).get("model.arch")) for run in runs}
    return data == {PAPERS_DATA} and (not claim.pairs or networks <= {PAPERS_NETWORK})


# Why nothing follows from the runs behind a claim: they did not train, not long enough, not tuned, not alike.


def _objections(claim: Claim, study: Study, finding: Finding, metric: str, every: Sequence[Arm], first: str) -> str:
    """Every cause why the arms of a finding decide nothing, in one clause each; empty where they may.

    `every` are all arms of the study, which may tell factors apart that two of them do not; `first` is a cause that is
    known already.
    """
    arms = finding.arms
    causes = (
        first,
        finding.objection,
        *(f"not trained: {text.partition(': ')[2]}" for text in untrained(arms)),
        *_training(claim, study, arms, metric),
        *_tuning(claim, study, arms),
        *_unequal_lengths([arms] if claim.find is by_values else [[arm] for arm in arms]),
        *_confounded(study, finding, metric, every),
    )
    return "; ".join(dict.fromkeys(filter(None, causes)))


def _training(claim: Claim, study: Study, arms: Sequence[Arm], metric: str) -> Iterator[str]:
    """All arms are at the level of guessing, short of where they would come, or so good that no difference can show."""
    means = [fmean(arm.values(metric).values()) for arm in arms]
    first = [next(iter(arm.runs.values())) for arm in arms]
    guessed = [(mean, chance_of(run), run) for mean, run in zip(means, first, strict=True)]
    if all(chance is not None and at_chance(mean, chance, run) for mean, chance, run in guessed):
        yield f"not trained: no arm is better than guessing in {metric}"
    if short := [*_short_runs(arms), *_rising_arms(arms)]:
        yield f"too short: {cut(short)}"
    room = max(1 - CEILING, (study.config.margin or 0.0) if claim.expected == "alike" else 0.0)
    if min(means) >= 1 - room:
        yield f"ceiling: every arm reaches {100 * min(means):.2f} % or more in {metric}"


def _short_runs(arms: Sequence[Arm]) -> Iterator[str]:
    for arm in arms:
        for seed, run in sorted(arm.runs.items()):
            config = flatten(run.config)
            warmup, from_scratch = config.get("model.warmup_steps"), config.get("run.init") in (None, "none")
            if run.steps and type(warmup) is int and warmup >= run.steps:
                yield f"{name(arm)} seed {seed} ({run.steps:,} steps, all of them warm-up)"
            elif run.steps and run.steps < FEWEST_STEPS and from_scratch:
                yield f"{name(arm)} seed {seed} ({run.steps:,} steps from scratch)"


def _rising_arms(arms: Sequence[Arm]) -> Iterator[str]:
    """How much validation accuracy has gained over the last quarter of the steps, in the mean of runs that show it."""
    for arm in arms:
        gains = []
        for curve in (run.curves.get("val_acc", []) for run in arm.runs.values()):
            before = [accuracy for step, accuracy in curve if step <= 0.75 * curve[-1][0]]
            gains += [curve[-1][1] - before[-1]] if before else []
        if gains and (gain := fmean(gains)) >= RISING:
            yield f"{name(arm)} (validation accuracy rose by {100 * gain:.1f} points in the last quarter)"


def _tuning(claim: Claim, study: Study, arms: Sequence[Arm]) -> Iterator[str]:
    """What a claim needs tuned was not, its best value is the last that was tried, or arms were tuned unequally."""
    key = claim.tuned
    single = [name(arm) for arm in arms if len(arm.grids.get(key, ())) < 2]
    if key and (key not in study.config.tune or not all(key in arm.tuned for arm in arms)):
        yield f"not tuned: {key} was not tuned in each arm; sweep it and name it under study.tune"
    elif key and single:
        yield f"not tuned: {key} has a single value in {cut(single)}; sweep several"
    at_end = [
        f"{name(arm)} ({key} {value:g} of {min(grid):g} to {max(grid):g})"
        for arm in arms
        for key, value in arm.tuned.items()
        if len(grid := [one for one in arm.grids.get(key, ()) if is_number(one)]) > 1
        and value in (min(grid), max(grid))
    ]
    if at_end:
        yield f"end of the grid: the best value may lie beyond it in {cut(at_end)}; widen it"
    runs = sorted({arm.tuning_runs for arm in arms})
    sizes = sorted({len(grid) for arm in arms for grid in arm.grids.values()})
    if len(runs) > 1:
        yield f"the arms were tuned on unequal numbers of runs ({', '.join(map(str, runs))})"
    elif len(sizes) > 1:
        yield f"the arms were tuned over unequal numbers of values ({', '.join(map(str, sizes))})"


def _unequal_lengths(groups: Sequence[Sequence[Arm]]) -> Iterator[str]:
    """Steps that differ where values of one factor are compared, or between the seeds of one arm."""
    for group in groups:
        lengths = sorted({run.steps for arm in group for run in arm.runs.values() if run.steps is not None})
        if len(lengths) > 1:
            yield f"unequal training: the runs took {lengths[0]:,} to {lengths[-1]:,} steps"


def _confounded(study: Study, finding: Finding, metric: str, every: Sequence[Arm]) -> Iterator[str]:
    """The two sides of a contrast differ in more than what is compared."""
    comparisons = Comparisons(every, study.config)
    for contrast in finding.contrasts:
        if len(contrast.arms) == 2:
            arm, other = contrast.arms
            if text := why_not(arm, other, metric):
                yield f"{name(arm)} and {name(other)}: {text}"
            if text := comparisons.unlike(arm, other):
                yield f"confounded: {name(arm)} and {name(other)} {text}"
