"""What our runs say about each claim of the paper: supported, contradicted, or not to be decided with them.

The contrasts that one study gives to one claim, in every metric and at every combination of its other factors, are one
family: their p-values are Holm-corrected together. Only accuracies are judged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.record import RECORD_NAME, RunRecord, flatten, run_directory
from vitexp.study.arm import Arm
from vitexp.study.claims.claims import CLAIMS, PAPERS_DATA, PAPERS_NETWORK
from vitexp.study.claims.findings import Claim, Contrast, Expected, Finding
from vitexp.study.claims.objections import objections
from vitexp.study.found import found_study, study_folders
from vitexp.study.select import Root, Runs, Selection, select
from vitexp.study.spec import Study, read_study
from vitexp.study.tune import tune

SUPPORT, CONTRADICT, UNDECIDED = "supports", "contradicts", "cannot decide"
DIFFER = "differs from the paper here"
"""What contradicts the paper in runs that were not made as the paper's were."""
ALPHA = 0.05


@dataclass(frozen=True)
class JudgedContrast:
    """A contrast with its statistics and what it says by itself."""

    contrast: Contrast
    judgement: stats.Judgement
    verdict: str


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """What one study says to one claim in one metric, at one combination of its other factors."""

    claim: Claim
    selection: Selection
    metric: str
    finding: Finding
    judged: tuple[JudgedContrast, ...]
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
        place = Path(self.selection.place)
        path = run_directory(place.parent, place.name, run.cell, run.seed) / RECORD_NAME
        return str(path) if path.is_file() else self.selection.place


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All verdicts in the order of the claims, the studies that gave none, and the folders that could not be read."""

    verdicts: tuple[ClaimVerdict, ...]
    studies: tuple[str, ...]
    silent: tuple[str, ...]
    unread: tuple[str, ...]

    def of(self, claim: Claim) -> tuple[ClaimVerdict, ...]:
        """The verdicts on one claim."""
        return tuple(one for one in self.verdicts if one.claim is claim)


def make_ledger(
    places: Sequence[str | Path] = (), root: str | Path = "runs", read: Sequence[tuple[Study, Runs]] = ()
) -> Ledger:
    """The ledger of the sweep files and folders in `places`, and of the runs in `read`, which lie elsewhere.

    Without either it is that of every study below `root`.

    Raises: ValueError for a place that is neither, a sweep file that is not sound, and where there is no run at all.
    """
    studies, unread = _studies(places if places or read else [root], Path(root))
    found: list[tuple[str, list[ClaimVerdict]]] = []
    for study, runs in (*studies, *read):
        try:
            found.append((study.name, read_verdicts(study, runs)))
        except ValueError as error:
            unread.append(str(error))
    if not found:
        raise ValueError("; ".join(unread))
    return Ledger(
        verdicts=tuple(one for claim in CLAIMS for _, verdicts in found for one in verdicts if one.claim is claim),
        studies=tuple(name for name, _ in found),
        silent=tuple(name for name, verdicts in found if not verdicts),
        unread=tuple(unread),
    )


def _studies(places: Sequence[str | Path], root: Path) -> tuple[list[tuple[Study, Root]], list[str]]:
    """Every study that the places name, each once, with the folder above its runs; and why others cannot be read."""
    found: dict[Path, tuple[Study, Root]] = {}
    unread: list[str] = []
    for place in map(Path, places):
        if place.is_file():
            study = read_study(place)
            found[(root / study.name).resolve()] = (study, root)
            continue
        folders = study_folders(place)
        if not folders:
            raise ValueError(
                f"{place} holds no run; run a study first, such as `vitexp sweep sweeps/pos_embed.yaml`, or name a "
                "sweep file or a folder of runs"
            )
        for folder in folders:
            try:
                found.setdefault(folder.resolve(), (found_study(folder), folder.parent))
            except ValueError as error:
                unread.append(str(error))
    return list(found.values()), unread


def read_verdicts(study: Study, root: Root) -> list[ClaimVerdict]:
    """What the runs of one study in `root` say.

    Raises: ValueError when none is finished, or they do not belong together.
    """
    selection = tune(select(study, root))
    if not any(arm.runs for arm in selection.arms):
        raise ValueError(f"{selection.place} holds no finished run of {study.path}; run `vitexp sweep` on it first")
    return [verdict for claim in CLAIMS for verdict in _judge(claim, selection)]


def _judge(claim: Claim, selection: Selection) -> Iterator[ClaimVerdict]:
    """One claim in one study: all of its contrasts are judged as a family."""
    study, arms = selection.study, selection.arms
    found = [
        (metric, finding)
        for metric in filter(is_accuracy, study.config.metrics)
        for finding in claim.find(claim, [arm for arm in arms if arm.values(metric)], metric, study)
    ]
    family = {id(contrast): contrast.difference for _, finding in found for contrast in finding.contrasts}
    margin = study.config.margin if claim.unit == "accuracy" else None
    judgements = stats.judge(family, margin=margin, alpha=ALPHA)
    for metric, finding in found:
        objection = objections(claim, study, finding, metric, arms)
        otherwise = CONTRADICT if is_papers_protocol(claim, finding.arms) else DIFFER
        judged = []
        for contrast in finding.contrasts:
            judgement = judgements[id(contrast)]
            verdict = UNDECIDED if objection else verdict_of(contrast.expected, judgement)
            judged.append(JudgedContrast(contrast, judgement, otherwise if verdict == CONTRADICT else verdict))
        yield ClaimVerdict(
            claim=claim, selection=selection, metric=metric, finding=finding, judged=tuple(judged), objection=objection
        )


def verdict_of(expected: Expected, judgement: stats.Judgement) -> str:
    """One contrast against what the claim expects of it.

    Alike is only what was shown to lie within the margin; a difference counts in the direction in which it was shown.
    """
    difference, p = judgement.difference, judgement.p_holm
    if difference.n < stats.MINIMUM_SEEDS or p is None:
        return UNDECIDED
    within = judgement.p_equivalence is not None and judgement.p_equivalence <= ALPHA
    if expected == "alike":
        return SUPPORT if within else CONTRADICT if p <= ALPHA else UNDECIDED
    if p <= ALPHA:
        return SUPPORT if (difference.mean < 0) == (expected == "lower") else CONTRADICT
    return CONTRADICT if within else UNDECIDED


def is_papers_protocol(claim: Claim, arms: Sequence[Arm]) -> bool:
    """Whether all runs are of the data and the networks that the paper's statement is about."""
    runs = [run for arm in arms for run in arm.runs.values()]
    data = {re.sub("[^a-z0-9]", "", str(run.data.get("name")).lower()) for run in runs}
    networks = {str(flatten(run.config).get("model.arch")) for run in runs}
    return data == {PAPERS_DATA} and (not claim.pairs or networks <= {PAPERS_NETWORK})
