"""Which seeds the arms of a study take next, where it gets seeds until it is decided, here or by W&B agents."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from vitexp.record import write_atomically
from vitexp.study.arm import Arm, name, spelling
from vitexp.study.cells import ADVICE, ARM, AS_TEXT, SEED, Cell
from vitexp.study.select import PLANNED_LOOKS
from vitexp.study.sequence import Looks, arms_of, given_seeds, read_looks
from vitexp.study.spec import Study, parse_study
from vitexp.study.table import Entry, Table, make_table, primary


def seeds_due(study: Study, looks: Looks, root: str | Path) -> dict[str, int]:
    """How many seeds each arm is to have, by its name in `arms_of`: one look more than it has where it is undecided.

    The same number as it has where it is decided, has had its last look, or has runs that did not finish. A baseline
    goes on as long as an arm that is compared with it.
    """
    arms = arms_of(study)
    if read_looks(Path(root) / study.name) is None:
        return dict.fromkeys(arms, looks.after[0])
    given = {name: len(seeds) for name, seeds in given_seeds(Path(root) / study.name).items()}
    try:
        table = make_table(study, root)
    except ValueError:  # nothing has finished yet
        return given
    due = dict(given)
    for entry in _compared(table):
        decision = entry.decision
        if decision and not decision.decided and decision.seeds < looks.after[-1]:
            following = looks.after[looks.after.index(decision.seeds) + 1]
            for side in (_name(arm, arms) for arm in (entry.arm, entry.baseline) if arm):
                due[side] = max(due[side], following)
    return due


def _compared(table: Table) -> list[Entry]:
    """The comparisons that verdicts are about."""
    entries = [entry for metric in primary(table.study.config) for entry in table.entries[metric]]
    return [entry for entry in entries if entry.baseline is not None and not entry.is_baseline and not entry.left_out]


def _name(arm: Arm, arms: dict[str, Cell]) -> str:
    """The name of an arm among those of the study, whose cells set all that its factors say."""
    wanted = spelling(dict(arm.factors))
    return next(
        name for name, cell in arms.items() if spelling({key: cell.overrides.get(key) for key in arm.factors}) == wanted
    )


def summary(table: Table, looks: Looks) -> list[str]:
    """What the looks have decided, in how many runs, and what is left."""
    compared = _compared(table)
    decided = [entry for entry in compared if entry.decision and entry.decision.decided and not entry.decision.why]
    runs = sum(len(arm.runs) for arm in table.arms)
    most = looks.after[-1] * len(table.arms)
    lines = [f"{len(decided)} of {len(compared)} comparisons are decided, with {runs} of {most} runs"]
    hopeless = [(entry.arm, entry.decision.why) for entry in compared if entry.decision and entry.decision.why]
    return lines + [f"{name(arm)}: {why}" for arm, why in hopeless]


def write_for_agents(study: Study, cells: Sequence[Cell], path: Path) -> None:
    """Writes cells of a study as a grid for `wandb sweep`: what varies is one parameter, whose values are the cells.

    Raises: ValueError for a command that hands values on as text.
    """
    if not AS_TEXT.isdisjoint(study.command):
        raise ValueError(f"{study.path}: agents take these cells from a file, not from ${{args}}; write {ADVICE}")
    walked = {one.path[0] for one in study.parameters if not one.fixed} | {SEED, ARM}
    points = [
        {key: value for key, value in cell.arguments.items() if key in walked and key != ARM}
        | cell.arguments.get(ARM, {})
        for cell in cells
    ]
    fixed = {key: {"value": value} for key, value in cells[0].arguments.items() if key not in walked}
    content = {
        **({"program": study.program} if study.program else {}),
        "description": PLANNED_LOOKS,
        "method": "grid",
        **({"metric": study.metric} if study.metric else {}),
        **({"command": list(study.command)} if study.command else {}),
        "parameters": {ARM: {"values": points}, **fixed},
    }
    head = f"# The cells that {study.path} takes next, for `wandb sweep`; written by `vitexp sweep --until-decided`\n"
    text = head + yaml.safe_dump(content, sort_keys=False)
    read = parse_study(path, text.encode()).cells()
    assert [one.overrides for one in read] == [one.overrides for one in cells]
    write_atomically(path, text)
