"""Do the arms of a study start alike? Each arm's initial weights and first epoch of images beside the baseline's.

Arms are paired by seed because they share these; whatever they do not share is said.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from vitexp.study.lint import Finding, arms_of, partner_of
from vitexp.study.plan import PlannedCell, parse_all
from vitexp.study.run.worker import Parse
from vitexp.study.spec import Study

_SHOWN = 4
_HEX = 8
Start = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """One arm beside the baseline, at the same seed."""

    arm: str
    cell: PlannedCell
    partner: PlannedCell
    start: Start
    base: Start

    @property
    def shared(self) -> list[str]:
        """The parameters that both have, by name and shape."""
        mine, other = self.start["weights"], self.base["weights"]
        return [name for name in mine if name in other and mine[name]["shape"] == other[name]["shape"]]

    @property
    def unequal(self) -> list[str]:
        """Those of them that start from other values."""
        mine, other = self.start["weights"], self.base["weights"]
        return [name for name in self.shared if mine[name]["values"] != other[name]["values"]]

    @property
    def digest(self) -> str:
        """Of this arm's values of the shared parameters: the same wherever the same start is made."""
        shared = {name: self.start["weights"][name] for name in self.shared}
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:_HEX]

    @property
    def own(self) -> list[str]:
        """The parameters that only this arm has, or has in another shape."""
        return [name for name in self.start["weights"] if name not in self.shared]


def compare(
    study: Study, planned: Sequence[PlannedCell], *, examine: Parse, context: BaseContext, workers: int = 1
) -> list[Compared]:
    """Each arm's first seed against the baseline's cell of that seed; `examine` is that of cli.py.

    Raises: ValueError when a cell's network or order cannot be made.
    """
    if not study.config.baseline:
        return []
    firsts = {arm: min(cells, key=_by_seed) for arm, cells in arms_of(study, planned).items()}
    pairs = [(arm, cell, partner_of(cell, study, planned)) for arm, cell in firsts.items()]
    needed = {cell.fingerprint: cell for _, *both in pairs for cell in both}
    answers = parse_all(examine, [cell.argv for cell in needed.values()], context, workers)
    starts = {key: _started(needed[key], answer) for key, answer in zip(needed, answers, strict=True)}
    return [
        Compared(arm, cell, partner, starts[cell.fingerprint], starts[partner.fingerprint])
        for arm, cell, partner in pairs
        if cell is not partner
    ]


def findings(study: Study, compared: Sequence[Compared]) -> list[Finding]:
    """What spoils the pairing: a shared parameter drawn anew, another order of images, other views of them."""
    found = []
    for one in compared:
        if drawn := [name for name in one.unequal if not _constants(one, name)]:
            found.append(_finding(one, f"initial weights differ in {_some(drawn)}, though names and shapes agree"))
        if set_otherwise := [name for name in one.unequal if _constants(one, name)]:
            text = f"initial weights differ in {_some(set_otherwise)}: constants set by an option"
            found.append(_finding(one, text, severity="note"))
        if not _moves_data(one, study):
            found += [
                _finding(one, f"{words} differs: {one.start[key]}, but {one.base[key]} in the baseline")
                for key, words in (("order", "the first epoch's order of images"), ("views", "the view of images"))
                if one.start[key] != one.base[key]
            ]
    return found


def line(one: Compared) -> str:
    """What an arm shares with the baseline at the start, in one line."""
    shared, unequal, own = one.shared, one.unequal, one.own
    equal = "all equal" if not unequal else f"{len(unequal)} of them unequal"
    only = f"; its own: {_some(own)}" if own else ""
    order = "the same" if one.start["order"] == one.base["order"] else "another"
    return (
        f"start of {one.arm}: {len(shared)} of {len(shared) + len(own)} parameters shared with the baseline "
        f"({100 * _share(one):.1f} % of the numbers), {equal} ({one.digest}){only}; "
        f"{order} order of images ({one.start['order'][:_HEX]})"
    )


def _share(one: Compared) -> float:
    sizes = {name: _size(weight["shape"]) for name, weight in one.start["weights"].items()}
    return sum(sizes[name] for name in one.shared) / max(1, sum(sizes.values()))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _constants(one: Compared, name: str) -> bool:
    return all(side["weights"][name]["values"].startswith("constant") for side in (one.start, one.base))


def _moves_data(one: Compared, study: Study) -> bool:
    """Whether the arm differs from the baseline in a factor of its data."""
    return any(
        key.startswith("data.") and one.cell.cell.overrides.get(key) != one.partner.cell.overrides.get(key)
        for key in study.arm_factors
    )


def _finding(one: Compared, text: str, severity: Any = "error") -> Finding:
    return Finding(severity, f"{text} ({one.cell.label!r} against {one.partner.label!r})")


def _started(cell: PlannedCell, answer: Mapping[str, Any] | str) -> Start:
    if isinstance(answer, str):
        raise ValueError(f"the start of cell {cell.label!r} cannot be made: {answer}")
    return answer["start"]


def _by_seed(cell: PlannedCell) -> tuple[bool, int]:
    return cell.seed is None, cell.seed or 0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
