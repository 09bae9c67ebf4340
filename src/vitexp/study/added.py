"""Seeds that were added after a look: what a study has shown may have decided that it went on.

The plan in a study's folder says when each cell was first asked for, and a record when its run ended. Where seeds were
asked for when others of the same two arms had finished, somebody could have looked at those. Cells that were asked for
at once are one plan, however often they were interrupted; runs of no planned cell came when the first of them began.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from vitexp.stats import ALPHA, MINIMUM_SEEDS
from vitexp.stats.planning import error_of_looks
from vitexp.study.arm import Arm
from vitexp.study.sequence import Looks, stored_plan

_NEVER = "~"
"""After every time."""


def note_of_looks(pairs: Iterable[tuple[Arm, Arm]], folder: Path, looks: Looks | None) -> list[str]:
    """One sentence on the comparison that most looks came before, with what it errs with; none where all was planned.

    `pairs` are arms with their baselines, `folder` that of the study, `looks` those that were planned.
    """
    cells, pairs = stored_plan(folder).get("cells", ()), list(pairs)
    asked = {cell["fingerprint"]: cell.get("planned", "") for cell in cells}  # "" in plans that did not note it yet
    runs = [run for pair in pairs for arm in pair for run in arm.runs.values()]
    outside = min((run.started for run in runs if run.fingerprint not in asked), default="")
    asked |= {run.fingerprint: outside for run in runs if run.fingerprint not in asked and asked}
    since = looks.since if looks else None
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


def looks_at(arm: Arm, base: Arm, asked: Mapping[str, str], since: str | None = None) -> tuple[int, ...]:
    """How many common seeds two arms had whenever others were asked for, or by a time; at last how many they have."""
    common = sorted(arm.runs.keys() & base.runs.keys())
    pairs = {seed: (arm.runs[seed], base.runs[seed]) for seed in common}
    began = {seed: max(asked[run.fingerprint] for run in pair) for seed, pair in pairs.items()}
    ended = {seed: max(run.finished or _NEVER for run in pair) for seed, pair in pairs.items()}
    if since is not None:
        seen = [sum(time < since for time in ended.values())]
    else:
        times = sorted(set(began.values()))[1:]
        seen = [sum(began[seed] < time and ended[seed] < time for seed in common) for time in times]
    return (*(n for n in dict.fromkeys(seen) if n >= MINIMUM_SEEDS), len(common))


def _listed(counts: tuple[int, ...]) -> str:
    return ", then ".join(map(str, counts))
