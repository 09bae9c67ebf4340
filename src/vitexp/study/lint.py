"""Is it a controlled study? What its cells differ in besides the studied factors, and whether its arms start alike.

Arms are paired by seed because they share initial weights and the first epoch of images; what they do not is said.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vitexp.record import flatten, result_config
from vitexp.stats import MINIMUM_SEEDS
from vitexp.study.arm import FOLLOWS
from vitexp.study.cells import SEED, varying
from vitexp.study.comparison import aliases, arm_of, confounded, factors
from vitexp.study.lines import LENGTHS
from vitexp.study.resolve import ResolvedCell, changed_values, parse_all
from vitexp.study.run.worker import Parse
from vitexp.study.space import Parameter
from vitexp.study.spec import Study

_ABSENT = "nothing"
_HEX = 8

Cells = Sequence[ResolvedCell]


class Finding(NamedTuple):
    """Something to look at; an error makes a comparison mean something else than the study says."""

    severity: Literal["error", "note"]
    text: str


def lint(study: Study, cells: Cells) -> list[Finding]:
    """What is wrong or remarkable with a study, errors first."""
    findings = [
        *_changed(cells),
        *_duplicates(cells),
        *_beyond_the_factors(study, cells),
        *confounding(study, cells),
        *_seeds(study, cells),
        *_tuning(study, cells),
    ]
    return sorted(findings, key=lambda finding: finding.severity)


def costs(study: Study, cells: Cells) -> list[str]:
    """What each arm takes, in one line each, and what all take together, finished cells included."""
    lines = []
    for arm, members in arms_of(study, cells).items():
        facts = members[0].facts
        lines.append(
            f"{arm}: {len(members)} runs of {facts['steps']:,} steps, {facts['images_seen']:,} images, "
            f"{facts['train_flops'] / 1e12:.3g} TFLOP; {facts['parameters']:,} parameters"
        )
    steps, flops = (sum(cell.facts[name] for cell in cells) for name in ("steps", "train_flops"))
    return [*lines, f"all together: {len(cells)} runs, {steps:,} steps, {flops / 1e12:.3g} TFLOP"]


def _changed(cells: Cells) -> list[Finding]:
    by_text = defaultdict(list)
    for cell in cells:
        for key, (asked, resolved) in changed_values(cell).items():
            by_text[f"{key} is given as {asked} and resolved to {resolved}"].append(cell)
    return [Finding("note", f"{text} ({_labels(same)})") for text, same in by_text.items()]


def _duplicates(cells: Cells) -> list[Finding]:
    same = defaultdict(list)
    for cell in cells:
        same[cell.fingerprint].append(cell)
    return [
        Finding("error", f"cells {_labels(group)} are one and the same run; take a value out")
        for group in same.values()
        if len(group) > 1
    ]


def _beyond_the_factors(study: Study, cells: Cells) -> list[Finding]:
    """Each cell against its partner. Arms of another size are what many studies are about, but should be known."""
    spoiled: dict[tuple[str, Any, Any], list[ResolvedCell]] = defaultdict(list)
    for cell in cells:
        partner = partner_of(cell, study, cells)
        for key, (here, there) in _differences(cell, partner, study).items():
            spoiled[key, str(here), str(there)].append(cell)
    return [
        Finding("note", f"{here} parameters, but {there} in the baseline ({_labels(same)})")
        if key == "parameters"
        else Finding(
            "error", f"{key} is {here}, but {there} in the baseline, and no factor of the study ({_labels(same)})"
        )
        for (key, here, there), same in spoiled.items()
    ]


def _differences(cell: ResolvedCell, partner: ResolvedCell, study: Study) -> dict[str, tuple[Any, Any]]:
    """Of results' own config and of the facts known beforehand; what the factors say is left out, and so is cost."""
    one, other = (result_config(side.config) | dict(side.facts) for side in (cell, partner))
    keys = set(varying([one, other])) - set(study.factors) - {SEED, "train_flops"}
    moved = _moved(cell, partner, study.factors)
    if any(key.startswith("data.") for key in moved):
        keys -= {"data.subset", "steps", "images_seen"}
    if not moved.isdisjoint(LENGTHS):
        keys -= {"steps", "images_seen"}
    keys -= {follows for factor, follows in FOLLOWS.items() if factor in moved}
    return {key: (one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in sorted(keys)}


def confounding(study: Study, cells: Cells) -> list[Finding]:
    """Factors that no arm separates, and comparisons with the baseline that change several factors at once."""
    if study.method == "random":  # its parameters are drawn independently; the options of one parameter are not
        kinds = [[key for key in study.arm_factors if key in _set_by(one)] for one in study.parameters]
    else:
        kinds = [list(study.arm_factors)]
    found = [text for keys in kinds for text in _confounding(study, cells, factors(keys, study.config))]
    return [Finding("error", text) for text in dict.fromkeys(found)]


def _confounding(study: Study, cells: Cells, keys: Sequence[str]) -> list[str]:
    arms = {cell.fingerprint: arm_of(cell.config, cell.overrides, keys) for cell in cells}
    different = list({tuple(arm.values()): arm for arm in arms.values()}.values())
    never = aliases(different, study.config)
    found = [f"{alias}; {_remedy(alias.keys)}" for alias in never]
    if study.method == "random":
        return found
    mixed = defaultdict(list)
    for cell in cells:
        partner = partner_of(cell, study, cells)
        names = tuple(confounded(arms[cell.fingerprint], arms[partner.fingerprint], different, study.config))
        if names and not any(set(alias.keys) <= set(names) for alias in never):
            mixed[names].append((cell, partner))
    for names, pairs in mixed.items():
        one, other = (_named(names, side) for side in pairs[0])
        labels = _labels([cell for cell, _ in pairs])
        found.append(f"{one} is compared with {other}, and no arm lies between ({labels}); {_remedy(names)}")
    return found


def _remedy(names: Sequence[str]) -> str:
    return (
        f"add arms that change one of them at a time, or say that they go together: study.together: {{value: "
        f"[[{', '.join(names)}]]}}"
    )


def _named(keys: Sequence[str], cell: ResolvedCell) -> str:
    values = flatten(cell.config) | cell.overrides
    return " ".join(f"{key}={values.get(key)}" for key in keys)


def _set_by(parameter: Parameter) -> set[str]:
    """The dotted keys that one parameter of the sweep sets; a block of options sets several."""
    values = parameter.settings.get("values", [])
    inside = {key for value in values if isinstance(value, Mapping) for key in flatten(value)}
    return {parameter.name} | inside | {f"{parameter.name}.{key}" for key in inside}


def _seeds(study: Study, cells: Cells) -> list[Finding]:
    arms = {arm: {cell.seed for cell in members} for arm, members in arms_of(study, cells).items()}
    everywhere = set().union(*arms.values())
    findings = [
        Finding("error", f"arm {arm} lacks seeds {_numbers(everywhere - seeds)}, which other arms have")
        for arm, seeds in arms.items()
        if seeds != everywhere
    ]
    if len(everywhere) < MINIMUM_SEEDS:
        text = f"the study has {len(everywhere)} seed{'s' * (len(everywhere) != 1)} ({_numbers(everywhere)})"
        findings.append(Finding("note", f"{text}; under {MINIMUM_SEEDS} nothing can be concluded"))
    return findings


def _tuning(study: Study, cells: Cells) -> list[Finding]:
    """Arms may be tuned over values of their own, but over equally many."""
    budgets = {
        arm: len({tuple(str(cell.overrides.get(key)) for key in study.config.tune) for cell in members})
        for arm, members in arms_of(study, cells, study.config.tune).items()
    }
    most = max(budgets.values())
    return [
        Finding("error", f"arm {arm} is tuned over {budget} settings, another one over {most}; give all equally many")
        for arm, budget in budgets.items()
        if budget < most
    ]


def arms_of(study: Study, cells: Cells, apart: Sequence[str] = ()) -> dict[str, list[ResolvedCell]]:
    """The cells of each arm, by the arm in words; the factors in `apart` make no arms."""
    arms = defaultdict(list)
    keys = [key for key in study.arm_factors if key not in apart]
    for cell in cells:
        words = [f"{key}={cell.overrides[key]}" for key in keys if key in cell.overrides]
        arms[" ".join(words) or "the only one"].append(cell)
    return dict(arms)


def partner_of(cell: ResolvedCell, study: Study, cells: Cells) -> ResolvedCell:
    """The baseline cell that is nearest to a cell in seed and other factors, with which it is compared.

    A cell of the baseline, or of a study without one, is its own.
    """
    base = [other for other in cells if other.overrides | study.config.baseline == other.overrides]
    if not study.config.baseline or any(other is cell for other in base):
        return cell
    keys = study.factors
    return max(base, key=lambda other: (cell.seed == other.seed, len(keys) - len(_moved(cell, other, keys))))


def _moved(cell: ResolvedCell, other: ResolvedCell, keys: Sequence[str]) -> set[str]:
    """The factors in which two cells differ."""
    return {key for key in keys if cell.overrides.get(key) != other.overrides.get(key)}


def _labels(cells: Cells) -> str:
    return _some([repr(cell.label) for cell in cells], 3)


def _some(names: Sequence[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _numbers(seeds: set[Any]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds, key=lambda seed: (seed is None, seed)))


@dataclass(frozen=True)
class Start:
    """What one arm starts from, beside the baseline at the same seed; each as `examine` of cli.py has it."""

    arm: str
    cell: ResolvedCell
    partner: ResolvedCell
    mine: Mapping[str, Any]
    base: Mapping[str, Any]

    def _split(self) -> tuple[list[str], list[str]]:
        """The names of the parameters that both have in one shape, and of those that only this arm has so."""
        mine, base = self.mine["weights"], self.base["weights"]
        shared = [name for name in mine if name in base and mine[name]["shape"] == base[name]["shape"]]
        return shared, [name for name in mine if name not in shared]

    def _unequal(self, constants: bool) -> list[str]:
        """Shared parameters that start from other values: those that are constants on both sides, or the others."""
        pairs = [(name, self.mine["weights"][name], self.base["weights"][name]) for name in self._split()[0]]
        return [
            name
            for name, *sides in pairs
            if sides[0]["values"] != sides[1]["values"]
            and constants == all(side["values"].startswith("constant") for side in sides)
        ]

    def findings(self, study: Study) -> list[Finding]:
        """What spoils the pairing: a shared parameter drawn anew, another order of images, other views of them."""
        found = []
        if drawn := self._unequal(constants=False):
            found.append(Finding("error", f"initial weights differ in {_some(drawn)}, though names and shapes agree"))
        if constants := self._unequal(constants=True):
            text = f"initial weights differ in {_some(constants)}: constants set by an option"
            found.append(Finding("note", text))
        if not any(key.startswith("data.") for key in _moved(self.cell, self.partner, study.arm_factors)):
            for key, words in (("order", "the first epoch's order of images"), ("views", "the view of images")):
                here, there = self.mine[key], self.base[key]
                if here != there:
                    found.append(Finding("error", f"{words} differs: {here}, but {there} in the baseline"))
        pair = f"({self.cell.label!r} against {self.partner.label!r})"
        return [Finding(severity, f"{text} {pair}") for severity, text in found]

    def __str__(self) -> str:
        """What the arm shares with the baseline at the start, and a digest that is the same wherever it is made."""
        weights, (shared, own) = self.mine["weights"], self._split()
        unequal = len(self._unequal(constants=False)) + len(self._unequal(constants=True))
        digest = hashlib.sha256(json.dumps({name: weights[name] for name in shared}, sort_keys=True).encode())
        sizes = {name: math.prod(weight["shape"]) for name, weight in weights.items()}
        share = sum(sizes[name] for name in shared) / max(1, sum(sizes.values()))
        equal = f"{unequal} of them unequal" if unequal else "all equal"
        only = f"; its own: {_some(own)}" if own else ""
        order = "the same" if self.mine["order"] == self.base["order"] else "another"
        return (
            f"start of {self.arm}: {len(shared)} of {len(weights)} parameters shared with the baseline "
            f"({100 * share:.1f} % of the numbers), {equal} ({digest.hexdigest()[:_HEX]}){only}; "
            f"{order} order of images ({self.mine['order'][:_HEX]})"
        )


def starts(study: Study, cells: Cells, *, examine: Parse, workers: int = 1) -> list[Start]:
    """Each arm's first seed against the baseline's cell of that seed; `examine` is that of cli.py.

    Raises: ValueError when a cell's network or order cannot be made.
    """
    if not study.config.baseline:
        return []
    firsts = {
        arm: min(group, key=lambda c: (c.seed is None, c.seed or 0)) for arm, group in arms_of(study, cells).items()
    }
    pairs = [(arm, cell, partner_of(cell, study, cells)) for arm, cell in firsts.items()]
    needed = {cell.fingerprint: cell for _, *both in pairs for cell in both}
    found = {}
    for cell, answer in zip(
        needed.values(), parse_all(examine, [c.argv for c in needed.values()], workers), strict=True
    ):
        if isinstance(answer, str):
            raise ValueError(f"the start of cell {cell.label!r} cannot be made: {answer}")
        found[cell.fingerprint] = answer["start"]
    return [
        Start(arm, cell, partner, found[cell.fingerprint], found[partner.fingerprint])
        for arm, cell, partner in pairs
        if cell is not partner
    ]
