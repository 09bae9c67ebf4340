"""Is it a controlled study? What its cells differ in besides the studied factors, and whether its arms start alike.

Arms are paired by seed because they share initial weights and the first epoch of images; what they do not is said.
"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from vitexp.axes import factor_of
from vitexp.json_text import as_text
from vitexp.record import digest, flatten, result_config, subset_follows
from vitexp.stats import MINIMUM_SEEDS
from vitexp.study.arm import FOLLOWS, cut
from vitexp.study.cells import SEED, make_cells, varying
from vitexp.study.comparison import Between, aliases, arm_of, confounded, factors
from vitexp.study.lines import LENGTHS
from vitexp.study.resolve import FACTS, ResolvedCell, changed_values, check_metrics, parse_all, resolve_cells
from vitexp.study.run.processes import Parse
from vitexp.study.run.search import check_search
from vitexp.study.space import Parameter, sample
from vitexp.study.spec import Study

_ABSENT = "nothing"
_SAMPLED = 8
_HEX = 8
_POS_STD, _POSITIONS = "model.pos_std", "position."

Cells = Sequence[ResolvedCell]
Start = Mapping[str, Any]
"""The initial `weights` by name (shape, values), the `order` of the first epoch's images, and the `views` of them."""


class Finding(NamedTuple):
    """Something to look at; an error makes a comparison mean something else than the study says."""

    severity: Literal["error", "note"]
    text: str


_CHOSEN = Finding("note", "points are chosen from the results so far: good for tuning, no ground for comparing arms")


def print_lint(
    study: Study, parse: Parse, examine: Parse | None, workers: int, extra: Sequence[str], *, as_json: bool = False
) -> int:
    """`vitexp sweep lint`: resolves every cell, says what the study costs and what is wrong with it (status 2).

    `parse` and `examine` are functions of cli.py; without `examine`, starts are not compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        resolve = partial(resolve_cells, study, parse=parse, root=folder, workers=workers, extra=extra)
        if study.method == "bayes":
            # Cells that are not chosen yet cannot be parsed; random points of the same space can.
            check_search(study)
            points = sample(study.parameters, min(study.run_cap or 0, _SAMPLED), 0)
            cells = resolve(make_cells(list(points)))
        else:
            cells = resolve(study.cells())
        check_metrics(study, cells)
        beside = starts(study, cells, examine=examine, workers=workers) if examine and study.method != "bayes" else []
    published = [text for text in dict.fromkeys(cell.published for cell in cells) if text]
    lines = [f"note: {text}" for text in published]
    if study.method == "bayes":
        flops = max(cell.facts["train_flops"] for cell in cells) / 1e12
        what, findings = f"{len(cells)} random points of the space", [_CHOSEN]
        total = f"at most {study.run_cap} runs of up to {flops:.3g} TFLOP each, as {len(cells)} random points say"
    else:
        what, findings = f"{len(cells)} cells", [*lint(study, cells), *(one for _, found in beside for one in found)]
        *arms, total = costs(study, cells)
        lines += [*arms, *(line for line, _ in beside)]
    findings.sort(key=lambda finding: finding.severity)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        more = {"starts": [line for line, _ in beside], "published": published}
        print(as_text(document(study, cells, findings) | more))
        return 2 if errors else 0
    lines += [*(f"{severity}: {text}" for severity, text in findings), total]
    print(*lines, f"{study.path}: {what} parse; {errors} errors, {len(findings) - errors} notes", sep="\n")
    return 2 if errors else 0


def document(study: Study, cells: Cells, findings: Sequence[Finding]) -> dict[str, Any]:
    """What `sweep lint --json` prints. Cells of a search are drawn, so that their costs do not add up to its own."""
    searched = study.method == "bayes"
    costs = {name: None if searched else sum(cell.facts[name] for cell in cells) for name in ("steps", "train_flops")}
    return {
        "schema": "vitexp.lint/1",
        "study": study.name,
        "file": str(study.path),
        "method": study.method,
        "findings": {level: [text for severity, text in findings if severity == level] for level in ("error", "note")},
        "cells": [
            {"label": cell.label, "seed": cell.seed, "fingerprint": cell.fingerprint, "overrides": cell.overrides}
            | {name: cell.facts[name] for name in FACTS}
            for cell in cells
        ],
        "total": {"runs": study.run_cap if searched else len(cells), **costs},
    }


def lint(study: Study, cells: Cells) -> list[Finding]:
    """What is wrong or remarkable with a study, errors first."""
    said: dict[Finding, list[ResolvedCell]] = defaultdict(list)
    for cell in cells:
        for key, (asked, resolved) in changed_values(cell).items():
            said[Finding("note", f"{key} is given as {asked} and resolved to {resolved}")].append(cell)
        for key, (here, there) in _differences(cell, partner_of(cell, study, cells), study).items():
            if key == "parameters":  # what many studies are about, but should be known
                finding = Finding("note", f"{here} parameters, but {there} in the baseline")
            else:
                finding = Finding("error", f"{key} is {here}, but {there} in the baseline, and no factor of the study")
            said[finding].append(cell)
    same = defaultdict(list)
    for cell in cells:
        same[cell.fingerprint].append(cell)
    twice = Finding("error", "cells are one and the same run; take a value out")
    groups = [*said.items(), *((twice, group) for group in same.values() if len(group) > 1)]
    findings = [Finding(found.severity, f"{found.text} ({_labels(group)})") for found, group in groups]
    findings += [*confounding(study, cells), *_seeds(study, cells), *_tuning(study, cells)]
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


def _differences(cell: ResolvedCell, partner: ResolvedCell, study: Study) -> dict[str, tuple[Any, Any]]:
    """Of results' own config and of the facts known beforehand; what the factors say is left out, and so is cost."""
    one, other = (result_config(side.config) | dict(side.facts) for side in (cell, partner))
    asked = {*study.factors, SEED, "train_flops"}
    keys = {key for key in varying([one, other]) if factor_of(key) not in asked}
    moved = _moved(cell, partner, study.factors)
    if any(key.startswith("data.") for key in moved):
        keys -= {"data.subset", "steps", "images_seen"}
    if cell.seed != partner.seed and subset_follows(one) and subset_follows(other):
        keys -= {"data.subset"}
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
    mixed, between = defaultdict(list), Between(different)
    for cell in cells:
        partner = partner_of(cell, study, cells)
        names = tuple(confounded(arms[cell.fingerprint], arms[partner.fingerprint], between, study.config))
        if names and not any(set(alias.keys) <= set(names) for alias in never):
            mixed[names].append((cell, partner))
    for names, pairs in mixed.items():
        one, other = (_named(names, side) for side in pairs[0])
        labels = _labels([cell for cell, _ in pairs])
        found.append(f"{one} is compared with {other}, and no arm lies between ({labels}); {_remedy(names)}")
    return found


def _remedy(names: Sequence[str]) -> str:
    together = f"study.together: {{value: [[{', '.join(names)}]]}}"
    return f"add arms that change one of them at a time, or say that they go together: {together}"


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
    return cut([repr(cell.label) for cell in cells], 3)


def starts(study: Study, cells: Cells, *, examine: Parse, workers: int = 1) -> list[tuple[str, list[Finding]]]:
    """Each arm's first seed against the baseline's cell of that seed; `examine` is that of cli.py."""
    if not study.config.baseline:
        return []
    firsts = {arm: min(group, key=lambda cell: _seed_order(cell.seed)) for arm, group in arms_of(study, cells).items()}
    pairs = [(arm, cell, partner_of(cell, study, cells)) for arm, cell in firsts.items()]
    needed = {cell.fingerprint: cell for _, *both in pairs for cell in both}
    found = {}
    answers = parse_all(examine, [cell.argv for cell in needed.values()], workers)
    for cell, answer in zip(needed.values(), answers, strict=True):
        if isinstance(answer, str):
            raise ValueError(f"the start of cell {cell.label!r} cannot be made: {answer}")
        found[cell.fingerprint] = answer["start"]
    return [
        compare_starts(study, arm, (cell, found[cell.fingerprint]), (partner, found[partner.fingerprint]))
        for arm, cell, partner in pairs
        if cell is not partner
    ]


def compare_starts(
    study: Study, arm: str, one: tuple[ResolvedCell, Start], other: tuple[ResolvedCell, Start]
) -> tuple[str, list[Finding]]:
    """What an arm shares with the baseline at the start, in one line, and what spoils the pairing.

    That is a shared parameter drawn anew, another order of images, and other views of them.
    """
    (cell, mine), (partner, base) = one, other
    weights, others, moved = mine["weights"], base["weights"], _moved(cell, partner, study.arm_factors)
    shared = [name for name in weights if name in others and weights[name]["shape"] == others[name]["shape"]]
    own = [name for name in weights if name not in shared]
    unequal = [name for name in shared if weights[name]["values"] != others[name]["values"]]
    constants = [
        name for name in unequal if all(side[name]["values"].startswith("constant") for side in (weights, others))
    ]
    scaled = [name for name in unequal if name.startswith(_POSITIONS)] if _POS_STD in moved else []
    found = []
    if drawn := [name for name in unequal if name not in (*constants, *scaled)]:
        found.append(Finding("error", f"initial weights differ in {cut(drawn)}, though names and shapes agree"))
    for names, why in ((constants, "constants set by an option"), (scaled, f"scaled by {_POS_STD}")):
        if names:
            found.append(Finding("note", f"initial weights differ in {cut(names)}: {why}"))
    if not any(key.startswith("data.") for key in moved):
        for key, words in (("order", "the first epoch's order of images"), ("views", "the view of images")):
            if mine[key] != base[key]:
                found.append(Finding("error", f"{words} differs: {mine[key]}, but {base[key]} in the baseline"))
    sizes = {name: math.prod(weight["shape"]) for name, weight in weights.items()}
    share = 100 * sum(sizes[name] for name in shared) / max(1, sum(sizes.values()))
    mark = digest({name: weights[name] for name in shared})[:_HEX]
    equal = f"{len(unequal)} of them unequal" if unequal else "all equal"
    line = (
        f"start of {arm}: {len(shared)} of {len(weights)} parameters shared with the baseline ({share:.1f} % of the "
        f"numbers), {equal} ({mark}){f'; its own: {cut(own)}' if own else ''}; "
        f"{'the same' if mine['order'] == base['order'] else 'another'} order of images ({mine['order'][:_HEX]})"
    )
    pair = f"({cell.label!r} against {partner.label!r})"
    return line, [Finding(severity, f"{text} {pair}") for severity, text in found]


def _numbers(seeds: set[int | None]) -> str:
    return ", ".join(map(str, sorted(seeds, key=_seed_order)))


def _seed_order(seed: int | None) -> tuple[bool, int]:
    return seed is None, seed or 0
