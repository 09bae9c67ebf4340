"""Seeds that were added after a look: what a study has shown may have decided that it went on.

The plan in a study's folder says when each cell was first asked for, and a record when its run began and ended. Where
seeds were asked for when others of the same two arms had finished, somebody could have looked at those. Runs that were
asked for at once are one plan, however often they were interrupted.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from vitexp.record import RunRecord
from vitexp.stats import ALPHA, MINIMUM_SEEDS
from vitexp.stats.planning import error_of_looks
from vitexp.study.arm import Arm
from vitexp.study.select import stored_plan
from vitexp.study.sequence import Looks

_NEVER = "~"
"""After every time."""


def note_of_looks(pairs: Iterable[tuple[Arm, Arm]], folder: Path, looks: Looks | None) -> list[str]:
    """One sentence on the comparison that most looks came before, with what it errs with; none where all was planned.

    `pairs` are arms with their baselines, `folder` that of the study, `looks` those that were planned.
    """
    asked = asked_at(folder)
    since = looks.since if looks else _NEVER
    found = {seen for arm, base in pairs if asked for seen in [looks_at(arm, base, asked, since)] if seen[:-1]}
    if not found:
        return []
    if looks:
        worst = max(seen[:-1] for seen in found)
        error = min(1.0, ALPHA + error_of_looks(worst))
        before = f"{_listed(worst)} seeds an arm had finished before the looks were planned"
    else:
        worst = max(found, key=error_of_looks)
        error = error_of_looks(worst)
        before = f"seeds were added when earlier ones had finished ({_listed(worst)} seeds)"
    return [
        f"{before}: if a difference that showed then would have ended the study, it errs in about {100 * error:.0f} % "
        f"of cases and not in {100 * ALPHA:.0f} %; `vitexp sweep --until-decided` on new seeds plans its looks"
    ]


def asked_at(folder: Path) -> dict[str, str]:
    """When each cell of a study was first asked for, by fingerprint; "" in plans that did not note it yet."""
    return {cell["fingerprint"]: cell.get("planned", "") for cell in stored_plan(folder).get("cells", ())}


def looks_at(arm: Arm, base: Arm, asked: Mapping[str, str], until: str = _NEVER) -> tuple[int, ...]:
    """How many common seeds two arms had whenever others were asked for, up to a time; at last how many they have."""

    def when(run: RunRecord) -> str:
        return min(asked.get(run.fingerprint, _NEVER), run.started or _NEVER)

    common = sorted(arm.runs.keys() & base.runs.keys())
    pairs = {seed: (arm.runs[seed], base.runs[seed]) for seed in common}
    began = {seed: max(map(when, pair)) for seed, pair in pairs.items()}
    ended = {seed: max(run.finished or _NEVER for run in pair) for seed, pair in pairs.items()}
    times = [*sorted(time for time in set(began.values()) if time < until)[1:], until]
    seen = [sum(began[seed] < time and ended[seed] < time for seed in common) for time in times if time != _NEVER]
    return (*(n for n in dict.fromkeys(seen) if n >= MINIMUM_SEEDS), len(common))


def _listed(counts: tuple[int, ...]) -> str:
    return ", then ".join(map(str, counts))
