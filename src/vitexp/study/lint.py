"""Is it a controlled study? What its resolved cells differ in besides the studied factors."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vitexp.record import flatten, result_config
from vitexp.stats import MINIMUM_SEEDS
from vitexp.study.arm import FOLLOWS
from vitexp.study.cells import SEED, varying
from vitexp.study.comparison import aliases, arm_of, confounded, factors
from vitexp.study.lines import LENGTHS
from vitexp.study.plan import FACTS, PlannedCell, changed_values
from vitexp.study.space import Parameter
from vitexp.study.spec import Study

_ABSENT = "nothing"


@dataclass(frozen=True)
class Finding:
    """Something to look at; an error makes a comparison mean something else than the study says."""

    severity: Literal["error", "note"]
    text: str


def lint(study: Study, planned: Sequence[PlannedCell]) -> list[Finding]:
    """What is wrong or remarkable with a study, errors first."""
    findings = [
        *_changed(planned),
        *_duplicates(planned),
        *_beyond_the_factors(study, planned),
        *confounding(study, planned),
        *_seeds(study, planned),
        *_tuning(study, planned),
    ]
    return sorted(findings, key=lambda finding: finding.severity)


def cost(study: Study, planned: Sequence[PlannedCell]) -> list[dict[str, Any]]:
    """What each arm takes, as far as the parser knows it: the arm in words, its runs, and the facts of one run."""
    arms = arms_of(study, planned)
    return [{"arm": arm, "runs": len(cells), **cells[0].facts} for arm, cells in arms.items()]


def _changed(planned: Sequence[PlannedCell]) -> list[Finding]:
    by_text = defaultdict(list)
    for cell in planned:
        for key, (asked, resolved) in changed_values(cell).items():
            by_text[f"{key} is given as {asked} and resolved to {resolved}"].append(cell)
    return [Finding("note", f"{text} ({_some(cells)})") for text, cells in by_text.items()]


def _duplicates(planned: Sequence[PlannedCell]) -> list[Finding]:
    same = defaultdict(list)
    for cell in planned:
        same[cell.fingerprint].append(cell)
    return [
        Finding("error", f"cells {_some(cells)} are one and the same run; take a value out")
        for cells in same.values()
        if len(cells) > 1
    ]


def _beyond_the_factors(study: Study, planned: Sequence[PlannedCell]) -> list[Finding]:
    """Each cell against its partner: the baseline cell that is nearest to it in the other factors."""
    spoiled: dict[tuple[str, Any, Any], list[PlannedCell]] = defaultdict(list)
    for cell in planned:
        partner = partner_of(cell, study, planned)
        for key, (here, there) in _differences(cell, partner, study).items():
            spoiled[key, str(here), str(there)].append(cell)
    return [_as_finding(key, here, there, cells) for (key, here, there), cells in spoiled.items()]


def confounding(study: Study, planned: Sequence[PlannedCell]) -> list[Finding]:
    """Factors that no arm separates, and comparisons with the baseline that change several factors at once."""
    if study.method == "random":  # its parameters are drawn independently; the options of one parameter are not
        kinds = [[key for key in study.arm_factors if key in _set_by(one)] for one in study.parameters]
    else:
        kinds = [list(study.arm_factors)]
    found = [finding for keys in kinds for finding in _confounding(study, planned, factors(keys, study.config))]
    return [Finding("error", text) for text in dict.fromkeys(found)]


def _confounding(study: Study, planned: Sequence[PlannedCell], keys: Sequence[str]) -> list[str]:
    arms = {cell.fingerprint: arm_of(cell.config, cell.cell.overrides, keys) for cell in planned}
    different = list({tuple(arm.values()): arm for arm in arms.values()}.values())
    never = aliases(different, study.config)
    found = [f"{alias}; {_remedy(alias.keys)}" for alias in never]
    if study.method == "random":
        return found
    mixed = defaultdict(list)
    for cell in planned:
        partner = partner_of(cell, study, planned)
        names = tuple(confounded(arms[cell.fingerprint], arms[partner.fingerprint], different, study.config))
        if names and not any(set(alias.keys) <= set(names) for alias in never):
            mixed[names].append((cell, partner))
    for names, pairs in mixed.items():
        one, other = (_named(names, side) for side in pairs[0])
        cells = _some([cell for cell, _ in pairs])
        found.append(f"{one} is compared with {other}, and no arm lies between ({cells}); {_remedy(names)}")
    return found


def _remedy(names: Sequence[str]) -> str:
    return (
        f"add arms that change one of them at a time, or say that they go together: study.together: {{value: "
        f"[[{', '.join(names)}]]}}"
    )


def _named(keys: Sequence[str], cell: PlannedCell) -> str:
    values = flatten(cell.config) | cell.cell.overrides
    return " ".join(f"{key}={values.get(key)}" for key in keys)


def _set_by(parameter: Parameter) -> set[str]:
    """The dotted keys that one parameter of the sweep sets; a block of options sets several."""
    values = parameter.settings.get("values", [])
    inside = {key for value in values if isinstance(value, Mapping) for key in flatten(value)}
    return {parameter.name} | inside | {f"{parameter.name}.{key}" for key in inside}


def partner_of(cell: PlannedCell, study: Study, planned: Sequence[PlannedCell]) -> PlannedCell:
    """The baseline cell that a cell is compared with; a cell of the baseline, or of a study without one, is its own."""
    if not study.config.baseline or _takes(cell, study.config.baseline):
        return cell
    base = [other for other in planned if _takes(other, study.config.baseline)]
    return max(base, key=lambda other: _agreement(cell, other, study.factors))


def _as_finding(key: str, here: Any, there: Any, cells: Sequence[PlannedCell]) -> Finding:
    """Arms of another size are what many studies are about, but should be known; anything else spoils them."""
    if key == "parameters":
        return Finding("note", f"{here} parameters, but {there} in the baseline ({_some(cells)})")
    return Finding(
        "error", f"{key} is {here}, but {there} in the baseline, and no factor of the study ({_some(cells)})"
    )


def _differences(cell: PlannedCell, partner: PlannedCell, study: Study) -> dict[str, tuple[Any, Any]]:
    """Of results' own config and of the facts known beforehand; what the factors say is left out, and so is cost."""
    one, other = (_comparable(side) for side in (cell, partner))
    keys = set(varying([one, other])) - set(study.factors) - {SEED, "train_flops"}
    moved = {key for key in study.factors if cell.cell.overrides.get(key) != partner.cell.overrides.get(key)}
    if any(key.startswith("data.") for key in moved):
        keys -= {"data.subset", "steps", "images_seen"}
    if not moved.isdisjoint(LENGTHS):
        keys -= {"steps", "images_seen"}
    keys -= {follows for factor, follows in FOLLOWS.items() if factor in moved}
    return {key: (one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in sorted(keys)}


def _comparable(cell: PlannedCell) -> dict[str, Any]:
    return result_config(cell.config) | {name: cell.facts[name] for name in FACTS if name in cell.facts}


def _seeds(study: Study, planned: Sequence[PlannedCell]) -> list[Finding]:
    arms = {arm: {cell.seed for cell in cells} for arm, cells in arms_of(study, planned).items()}
    everywhere = set().union(*arms.values())
    findings = [
        Finding("error", f"arm {arm} lacks seeds {_words(everywhere - seeds)}, which other arms have")
        for arm, seeds in arms.items()
        if seeds != everywhere
    ]
    if len(everywhere) < MINIMUM_SEEDS:
        words = f"{len(everywhere)} seed{'s' * (len(everywhere) != 1)} ({_words(everywhere)})"
        findings.append(Finding("note", f"the study has {words}; under {MINIMUM_SEEDS} nothing can be concluded"))
    return findings


def _tuning(study: Study, planned: Sequence[PlannedCell]) -> list[Finding]:
    """Arms may be tuned over values of their own, but over equally many."""
    budgets = {
        arm: len({tuple(str(cell.cell.overrides.get(key)) for key in study.config.tune) for cell in cells})
        for arm, cells in arms_of(study, planned, study.config.tune).items()
    }
    most = max(budgets.values())
    return [
        Finding("error", f"arm {arm} is tuned over {budget} settings, another one over {most}; give all equally many")
        for arm, budget in budgets.items()
        if budget < most
    ]


def arms_of(study: Study, planned: Sequence[PlannedCell], apart: Sequence[str] = ()) -> dict[str, list[PlannedCell]]:
    """The cells of each arm, by the arm in words; the factors in `apart` make no arms."""
    arms = defaultdict(list)
    keys = [key for key in study.arm_factors if key not in apart]
    for cell in planned:
        words = [f"{key}={cell.cell.overrides[key]}" for key in keys if key in cell.cell.overrides]
        arms[" ".join(words) or "the only one"].append(cell)
    return dict(arms)


def _takes(cell: PlannedCell, values: Mapping[str, Any]) -> bool:
    return all(cell.cell.overrides.get(key) == value for key, value in values.items())


def _agreement(cell: PlannedCell, other: PlannedCell, factors: Sequence[str]) -> tuple[bool, int]:
    """The same seed first, because pairs are made by seed."""
    shared = sum(cell.cell.overrides.get(key) == other.cell.overrides.get(key) for key in factors)
    return cell.seed == other.seed, shared


def _some(cells: Sequence[PlannedCell]) -> str:
    names = [repr(cell.label) for cell in cells[:3]]
    return ", ".join(names) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")


def _words(seeds: set[Any]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds, key=lambda seed: (seed is None, seed)))
