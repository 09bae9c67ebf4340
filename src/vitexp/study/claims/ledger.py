"""What our runs say about each claim of the paper: supported, contradicted, or not to be decided with them.

The contrasts that one study gives to one claim, in every metric and at every combination of its other factors, are one
family: their p-values are Holm-corrected together. Only accuracies are judged.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.record import RECORD_NAME, RunRecord, flatten, run_directory
from vitexp.study.arm import Arm
from vitexp.study.claims import compute as compute_claims
from vitexp.study.claims import families
from vitexp.study.claims.claims import CLAIMS, PAPERS_DATA, Claim, Expected
from vitexp.study.claims.contrast import Contrast, Finding, by_values
from vitexp.study.claims.hindrance import hindrances
from vitexp.study.curve import size_key
from vitexp.study.select import Runs, Selection, found_study, select, study_folders
from vitexp.study.spec import Study, read_study
from vitexp.study.tune import tune

SUPPORT, CONTRADICT, UNDECIDED = "supports", "contradicts", "cannot decide"
DIFFER = "differs from the paper here"
"""What contradicts the paper in runs that were not made as the paper's were."""
ALPHA = stats.ALPHA
Known = tuple[Study, Runs]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A contrast with its statistics and what it says by itself."""

    contrast: Contrast
    judgement: stats.Judgement
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one study says to one claim in one metric, at one combination of its other factors."""

    claim: Claim
    study: Study
    place: str
    folder: Path | None
    metric: str
    finding: Finding
    judged: tuple[Judged, ...]
    comparisons: int
    verdict: str
    hindrance: str
    cautions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms behind it."""
        return self.finding.arms

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """The runs behind it, each once."""
        every = {id(run): run for arm in self.arms for run in arm.runs.values()}
        return tuple(every.values())

    def path_of(self, run: RunRecord) -> str:
        """Where a run's record lies, or else where the runs of its study do."""
        if self.folder is None:
            return self.place
        path = run_directory(self.folder.parent, self.folder.name, run.cell, run.seed) / RECORD_NAME
        return str(path) if path.is_file() else self.place


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All lines in the order of the claims, the studies that gave none, and the folders that could not be read."""

    lines: tuple[Line, ...]
    studies: tuple[str, ...]
    silent: tuple[str, ...]
    unread: tuple[str, ...]

    def of(self, claim: Claim) -> tuple[Line, ...]:
        """The lines of one claim."""
        return tuple(line for line in self.lines if line.claim is claim)


def make_ledger(places: Sequence[str | Path] = (), root: str | Path = "runs", read: Sequence[Known] = ()) -> Ledger:
    """The ledger of the sweep files and folders in `places`, and of the runs in `read`, which lie elsewhere.

    Without either it is that of every study below `root`.

    Raises: ValueError for a place that is neither, a sweep file that is not sound, and where there is no run at all.
    """
    studies, unread = _studies(places if places or read else [root], Path(root))
    lines: list[Line] = []
    names, silent = [], []
    everything: list[tuple[Study, Path | Runs]] = [*studies, *read]
    for study, runs in everything:
        try:
            found = read_lines(study, runs)
        except ValueError as error:
            unread.append(str(error))
            continue
        names.append(study.name)
        lines += found
        if not found:
            silent.append(study.name)
    if not names:
        raise ValueError("; ".join(unread))
    order = {claim.name: index for index, claim in enumerate(CLAIMS)}
    lines.sort(key=lambda line: order[line.claim.name])
    return Ledger(lines=tuple(lines), studies=tuple(names), silent=tuple(silent), unread=tuple(unread))


def read_lines(study: Study, runs: Path | Runs) -> list[Line]:
    """What the runs of one study say: those in its folder, or those that were read already.

    Raises: ValueError when none is finished, or they do not belong together.
    """
    selection = tune(select(study, runs.parent if isinstance(runs, Path) else runs))
    if not any(arm.runs for arm in selection.arms):
        raise ValueError(f"{selection.place} holds no finished run of {study.path}; run `vitexp sweep` on it first")
    return [line for claim in CLAIMS for line in _lines(claim, study, runs, selection)]


def _lines(claim: Claim, study: Study, runs: Path | Runs, selection: Selection) -> list[Line]:
    """One claim in one study: all of its contrasts are judged as a family."""
    metrics = [metric for metric in study.config.metrics if is_accuracy(metric)]
    found = [(metric, finding) for metric in metrics for finding in _find(claim, selection.arms, metric, study)]
    family = {
        (row, column): contrast.difference
        for row, (_, finding) in enumerate(found)
        for column, contrast in enumerate(finding.contrasts)
    }
    margin = study.config.margin if claim.unit == "accuracy" else None
    judgements = stats.judge(family, margin=margin)
    lines = []
    for row, (metric, finding) in enumerate(found):
        hindrance = hindrances(claim, study, finding, metric, selection.arms)
        same = is_papers_protocol(claim, finding.arms)
        judged = tuple(
            Judged(
                contrast=contrast,
                judgement=judgements[row, column],
                verdict=UNDECIDED if hindrance else _here(contrast.expected, judgements[row, column], same),
            )
            for column, contrast in enumerate(finding.contrasts)
        )
        lines.append(
            Line(
                claim=claim,
                study=study,
                place=selection.place,
                folder=runs if isinstance(runs, Path) else None,
                metric=metric,
                finding=finding,
                judged=judged,
                comparisons=len(family),
                verdict=UNDECIDED if hindrance else _together({one.verdict for one in judged}),
                hindrance=hindrance,
                cautions=selection.cautions,
                notes=selection.notes,
            )
        )
    return lines


def verdict_of(expected: Expected, judgement: stats.Judgement, alpha: float = ALPHA) -> str:
    """One contrast against what the claim expects of it.

    Alike is only what was shown to lie within the margin; a difference counts in the direction in which it was shown.
    """
    difference, p = judgement.difference, judgement.p_holm
    if difference.n < stats.MINIMUM_SEEDS or p is None:
        return UNDECIDED
    within = judgement.p_equivalence is not None and judgement.p_equivalence <= alpha
    if expected == "alike":
        return SUPPORT if within else CONTRADICT if p <= alpha else UNDECIDED
    if p <= alpha:
        return SUPPORT if (difference.mean < 0) == (expected == "lower") else CONTRADICT
    return CONTRADICT if within else UNDECIDED


def _find(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> list[Finding]:
    measured = [arm for arm in arms if arm.values(metric)]
    if claim.reading == "hybrid lead":
        return families.hybrid_lead(measured, metric)
    if claim.reading == "hybrid fade":
        return families.hybrid_fade(measured, metric)
    if claim.reading == "compute saving":
        return compute_claims.compute_saving(measured, metric)
    if claim.reading == "depth over width":
        return compute_claims.depth_over_width(measured, metric)
    if claim.reading == "data hunger":
        key = size_key(study)
        return families.data_hunger(measured, metric, key) if key else []
    return by_values(claim, measured, metric)


def _here(expected: Expected, judgement: stats.Judgement, papers_protocol: bool) -> str:
    """What a contrast says; under another protocol than the paper's it contradicts nothing."""
    verdict = verdict_of(expected, judgement)
    return DIFFER if verdict == CONTRADICT and not papers_protocol else verdict


def _together(verdicts: AbstractSet[str]) -> str:
    """A claim falls with any of its contrasts, and stands with all of them."""
    fallen = set(verdicts) & {CONTRADICT, DIFFER}
    return fallen.pop() if fallen else SUPPORT if verdicts == {SUPPORT} else UNDECIDED


def is_papers_protocol(claim: Claim, arms: Sequence[Arm]) -> bool:
    """Whether all runs are of the data and the networks that the paper's statement is about."""
    runs = [run for arm in arms for run in arm.runs.values()]
    data = {re.sub("[^a-z0-9]", "", str(run.data.get("name")).lower()) for run in runs}
    networks = {str(flatten(run.config).get("model.arch")) for run in runs}
    return data == {PAPERS_DATA} and (not claim.networks or networks <= set(claim.networks))


def _studies(places: Sequence[str | Path], root: Path) -> tuple[list[tuple[Study, Path]], list[str]]:
    """Every study that the places name, each once, and why folders of runs could not be read."""
    found: dict[Path, tuple[Study, Path]] = {}
    unread: list[str] = []
    for place in map(Path, places):
        if place.is_file():
            study = read_study(place)
            found[(root / study.name).resolve()] = (study, root / study.name)
            continue
        folders = study_folders(place)
        if not folders:
            raise ValueError(
                f"{place} holds no run; run a study first, such as `vitexp sweep sweeps/pos_embed.yaml`, or name a "
                "sweep file or a folder of runs"
            )
        for folder in folders:
            try:
                found.setdefault(folder.resolve(), (found_study(folder), folder))
            except ValueError as error:
                unread.append(str(error))
    return list(found.values()), unread
