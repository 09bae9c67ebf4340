"""Which arms of a study a claim of the paper compares, at equal other factors, and how they differ.

A finder takes the arms that hold a metric and yields a finding for each combination of the other factors that speaks
to the claim: by pairs of values of one factor, or by families of networks where they cost alike (Figures 4, 5 and 8).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from vitexp import stats
from vitexp.metrics import ROBUST, change
from vitexp.study.arm import Arm, is_number, spelling
from vitexp.study.claims.families import HYBRID, NETWORK, RESNET, VIT, family_of, flops_of, network, sizes_of
from vitexp.study.comparison import image_order
from vitexp.study.curve import size_key
from vitexp.study.fits import Crossover, equal_accuracy, find_crossover
from vitexp.study.lines import LENGTHS
from vitexp.study.samples import sample_of
from vitexp.study.spec import Study
from vitexp.study.table import Label

Expected = Literal["lower", "higher", "alike"]
CLEAN = f"{ROBUST}clean"
"""The images as they are: those that were also changed."""
_NEAR, _COMPARABLE = 1.1, 2.0
"""Factors of compute: up to the first it counts as equal, up to the second as comparable."""


@dataclass(frozen=True)
class Contrast:
    """A difference that a claim expects to be lower or higher than zero, or alike; with the arms behind it."""

    one: str
    other: str
    expected: Expected
    contrast: stats.Contrast
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class Finding:
    """What a claim finds in the arms of a study at equal other factors; `objection` says why nothing follows of it."""

    context: Label
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...] = ()
    objection: str = ""
    absent: tuple[str, ...] = ()
    crossover: Crossover | None = None


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    `find` compares the arms of a study, such as by the `pairs` of values of `axis`, of which the first is expected to
    be lower than, or like, the second. `unit` is what is compared: accuracy, or compute, as the natural logarithm of
    how many times less. `tuned` must be tuned in each arm, and `needs` says what a study must have. `changes` begin the
    names of the tests on changed images that it is about; a claim without any is about images as they are.
    """

    name: str
    sentence: str
    source: str
    expected: Expected
    find: "Finder"
    needs: str
    axis: str = "model.arch"
    pairs: tuple[tuple[str, str], ...] = ()
    unit: Literal["accuracy", "compute"] = "accuracy"
    tuned: str = ""
    changes: tuple[str, ...] = ()

    def is_about(self, metric: str) -> bool:
        """Whether a metric speaks to it."""
        if self.changes:
            return metric.startswith(tuple(f"{ROBUST}{name}" for name in self.changes))
        return not change(metric)


Finder = Callable[[Claim, Sequence[Arm], str, Study], Iterator[Finding]]


def by_values(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """The claim's pairs of values."""
    values = tuple(dict.fromkeys(value for pair in claim.pairs for value in pair))
    for context, group in _by_context(arms, [claim.axis]):
        held = {str(arm.factors[claim.axis]): arm for arm in group if claim.axis in arm.factors}
        pairs = [pair for pair in claim.pairs if held.keys() >= set(pair)]
        contrasts = [
            Contrast(one, other, claim.expected, difference, (held[one], held[other]))
            for one, other in pairs
            if (difference := _difference(held[one], held[other], metric, study)).seeds
        ]
        if contrasts:
            behind = tuple(arm for value, arm in held.items() if value in values)
            absent = tuple(value for value in values if value not in held)
            yield Finding(context, behind, tuple(contrasts), absent=absent)


def hybrid_lead(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """The smallest hybrid that a plain ViT of equal compute can be set beside, minus that ViT."""
    for context, hybrids, plain, leads in _leads(arms, metric, study):
        if leads:
            hybrid, beside, lead = leads[0]
            behind = (hybrid, *beside)
            contrast = Contrast(network(hybrid), "plain ViT of equal compute", claim.expected, lead, behind)
            yield Finding(context, behind, (contrast,))
        else:
            costs = [[flops_of(side[place]) / 1e12 for place in (0, -1)] for side in (plain, hybrids)]
            spans = [" to ".join(f"{cost:.2g}" for cost in dict.fromkeys(ends)) for ends in costs]
            why = f"no plain ViT costs what a hybrid does: {' beside '.join(spans)} TFLOP a run"
            yield Finding(context, (*hybrids, *plain), objection=why)


def hybrid_fade(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """The lead of the largest hybrid minus the lead of the smallest, each over a plain ViT of equal compute."""
    for context, hybrids, plain, leads in _leads(arms, metric, study):
        if len(leads) > 1:
            small, large = leads[0], leads[-1]
            difference = _minus(large.lead, small.lead)
            one, other = (f"lead of {network(lead.hybrid)}" for lead in (large, small))
            behind = (small.hybrid, *small.beside, large.hybrid, *large.beside)
            yield Finding(context, behind, (Contrast(one, other, claim.expected, difference, behind),))
        else:
            why = "it takes hybrids of two sizes, each beside plain ViTs that cost as much"
            yield Finding(context, (*hybrids, *plain), objection=why)


def stands_better(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """Each plain ViT and the ResNet nearest in cost on changed images: its accuracy there, and how much it loses.

    Both must be better: a network that is worse to begin with has less to lose.
    """
    for context, group in _by_context(arms, [*NETWORK, *LENGTHS]):
        vits, resnets = ([arm for arm in group if family_of(arm) == family] for family in (VIT, RESNET))
        for vit in vits if resnets else ():
            other = min(resnets, key=lambda resnet: _times_apart({0.0: vit}, {0.0: resnet}))
            if (apart := _times_apart({0.0: vit}, {0.0: other})) > _COMPARABLE:
                why = f"{network(vit)} and {network(other)} differ {apart:.1f} times in compute; up to "
                yield Finding(context, (vit, other), objection=f"{why}{_COMPARABLE:g} is compared")
                continue
            changed, clean = (_difference(vit, other, name, study) for name in (metric, CLEAN))
            names, both = (network(vit), network(other)), (vit, other)
            runs = [run for arm in both for run in arm.runs.values()]
            if len({image_order(run, name) for run in runs for name in (metric, CLEAN)}) > 1:
                why = f"{' and '.join(names)} were not all tested on the same images, changed and clean"
                yield Finding(context, both, objection=f"{why}: run `vitexp robustness` on all of them once more")
                continue
            contrasts = (
                Contrast(*names, "higher", changed, both),
                Contrast(f"{names[0]} less clean", f"{names[1]} less clean", "higher", _minus(changed, clean), both),
            )
            yield Finding(context, both, tuple(one for one in contrasts if one.contrast.seeds))


def data_hunger(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """Each ViT with the ResNet nearest in cost: how far it is behind on the least data, and what more data changes."""
    key = size_key(study)
    for context, group in _by_context(arms, [*NETWORK, key]) if key else ():
        vits, resnets = (_by_size(group, family, key) for family in (VIT, RESNET))
        for name, vit in vits.items() if resnets else ():
            other = min(resnets, key=lambda resnet: _times_apart(vit, resnets[resnet]))
            yield _hunger(context, (name, other), vit, resnets[other], metric, study)


def _hunger(
    context: Label,
    names: tuple[str, str],
    vit: Mapping[float, Arm],
    resnet: Mapping[float, Arm],
    metric: str,
    study: Study,
) -> Finding:
    name, other = names
    behind = (*vit.values(), *resnet.values())
    sizes = sorted(vit.keys() & resnet.keys())
    seeds = sorted(set.intersection(*(set(arm.values(metric)) for arm in behind)))
    if (apart := _times_apart(vit, resnet)) > _COMPARABLE:
        why = f"{name} and {other} differ {apart:.1f} times in compute; up to {_COMPARABLE:g} is compared"
        return Finding(context, behind, objection=why)
    if len(sizes) < 2 or not seeds:
        return Finding(context, behind, objection=f"{name} and {other} share too few sizes or seeds")
    gaps = {size: _difference(vit[size], resnet[size], metric, study) for size in sizes}
    least, most = sizes[0], sizes[-1]
    at_least, change = gaps[least], _minus(gaps[most], gaps[least])
    contrasts = (
        Contrast(name, f"{other} on {least:,.0f} images", "lower", at_least, (vit[least], resnet[least])),
        Contrast(f"{name} − {other} on {most:,.0f} images", f"the same on {least:,.0f}", "higher", change, behind),
    )
    crossover = find_crossover(sizes, np.array([[gaps[size].by_seed[seed] for size in sizes] for seed in seeds]))
    return Finding(context, behind, contrasts, crossover=crossover)


def compute_saving(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """ViTs beside ResNets, of any size and trained for any time: how many times less compute for equal accuracy."""
    for context, group in _by_context(arms, [*NETWORK, *LENGTHS]):
        vits, resnets = ([arm for arm in group if family_of(arm) == family] for family in (VIT, RESNET))
        yield from _at_equal_accuracy(claim, context, {"ViT": vits, "ResNet": resnets}, metric)


def depth_over_width(claim: Claim, arms: Sequence[Arm], metric: str, study: Study) -> Iterator[Finding]:
    """Networks that differ from one base in depth alone, beside those that differ from it in width (and heads) alone.

    The base is the network that has most of both.
    """
    for context, group in _by_context(arms, NETWORK):
        deep, wide = max(_around(group), key=lambda sides: min(map(len, sides)), default=([], []))
        yield from _at_equal_accuracy(claim, context, {"depth": deep, "width": wide}, metric)


def _at_equal_accuracy(
    claim: Claim, context: Label, sides: Mapping[str, Sequence[Arm]], metric: str
) -> Iterator[Finding]:
    """How many times less compute the first side takes; nothing where either lacks the two networks of a line."""
    one, other = sides
    lines = [[arm for arm in arms if flops_of(arm)] for arms in sides.values()]
    if any(len(line) < 2 for line in lines):
        return
    behind = tuple({id(arm): arm for line in lines for arm in line}.values())
    first, second = ([(flops_of(arm), arm.values(metric)) for arm in line] for line in lines)
    equal = equal_accuracy(first, second)
    if not equal.gaps:
        yield Finding(context, behind, objection=f"the networks of {one} and {other} share no seed")
    elif not equal.log_factors:
        yield Finding(context, behind, objection=f"{one} and {other} reach no common accuracy")
    else:
        sample = stats.Sample(values=equal.log_factors, pool=(claim.name, metric, str(context)))
        difference = stats.Contrast(weights={sample: 1.0})
        count = f"{len(equal.apart)} of {len(equal.gaps)} seeds"
        why = f"at {count} {one} and {other} reach no common accuracy, and the others would be a choice"
        contrast = Contrast(one, other, claim.expected, difference, behind)
        yield Finding(context, behind, (contrast,), why if equal.apart else "")


def _around(arms: Sequence[Arm]) -> Iterator[tuple[list[Arm], list[Arm]]]:
    """For each network that is named by its sizes, those that differ from it in depth, and in width (and heads)."""
    sized = [(sizes, arm) for arm in arms if (sizes := sizes_of(arm))]
    for (width, depth, mlp, heads, patch), _ in sized:
        deep = [arm for (w, _, m, h, p), arm in sized if (w, m, h, p) == (width, mlp, heads, patch)]
        wide = [arm for (_, d, m, _, p), arm in sized if (d, m, p) == (depth, mlp, patch)]
        yield deep, wide


def _by_context(arms: Sequence[Arm], axes: Sequence[str]) -> list[tuple[Label, list[Arm]]]:
    """The arms grouped by all factors that are not among `axes`."""
    groups: dict[str, tuple[Label, list[Arm]]] = {}
    for arm in arms:
        label = tuple((key, value) for key, value in arm.factors.items() if key not in axes)
        groups.setdefault(spelling(label), (label, []))[1].append(arm)
    return list(groups.values())


class _Lead(NamedTuple):
    """A hybrid, the plain arms around its cost, and its lead over a plain ViT of equal cost."""

    hybrid: Arm
    beside: tuple[Arm, ...]
    lead: stats.Contrast


def _leads(arms: Sequence[Arm], metric: str, study: Study) -> Iterator[tuple[Label, list[Arm], list[Arm], list[_Lead]]]:
    """Hybrids and plain ViTs that cost is known of, cheapest first, where a group of equal other factors has both."""
    for context, group in _by_context(arms, [*NETWORK, *LENGTHS]):
        known = sorted(filter(flops_of, group), key=flops_of)
        hybrids, plain = ([arm for arm in known if family_of(arm) == family] for family in (HYBRID, VIT))
        beside = [(hybrid, _bracket(flops_of(hybrid), plain)) for hybrid in hybrids]
        leads = [_Lead(hybrid, around, _lead(hybrid, around, metric, study)) for hybrid, around in beside if around]
        if hybrids and plain:
            yield context, hybrids, plain, [one for one in leads if one.lead.seeds]


def _bracket(flops: float, plain: Sequence[Arm]) -> tuple[Arm, ...]:
    """The plain arms next below and next above in compute; one that costs the same stands alone."""
    below = [arm for arm in plain if flops_of(arm) <= flops * _NEAR]
    above = [arm for arm in plain if flops_of(arm) >= flops / _NEAR]
    if not below or not above:
        return ()
    equal = [arm for arm in below if arm in above]
    return (equal[-1],) if equal else (below[-1], above[0])


def _lead(hybrid: Arm, around: Sequence[Arm], metric: str, study: Study) -> stats.Contrast:
    """A hybrid minus a plain ViT that costs as much: the line between two in the logarithm of compute."""
    known = [math.log(flops_of(arm)) for arm in around]
    places = np.eye(len(around))
    shares = [float(np.interp(math.log(flops_of(hybrid)), known, place)) for place in places]
    return _sum([(hybrid, 1.0), *((arm, -share) for arm, share in zip(around, shares, strict=True))], metric, study)


def _by_size(arms: Sequence[Arm], family: str, key: str) -> dict[str, dict[float, Arm]]:
    """The arms of a family by the name of the network and by the number of training images.

    The number is that of the runs, or else the value of the key.
    """
    found: dict[str, dict[float, Arm]] = {}
    for arm in arms:
        told = [run.data["train_images"] for run in arm.runs.values() if "train_images" in run.data]
        size = next((size for size in told if size is not None), arm.factors.get(key))
        if family_of(arm) == family and size is not None and is_number(size):
            found.setdefault(network(arm), {})[float(size)] = arm
    return found


def _times_apart(one: Mapping[float, Arm], other: Mapping[float, Arm]) -> float:
    """How many times the compute of two series differs at their smallest sizes; infinite where it is not recorded."""
    low, high = sorted(flops_of(series[min(series)]) for series in (one, other))
    return high / low if low else math.inf


def _difference(one: Arm, other: Arm, metric: str, study: Study) -> stats.Contrast:
    return _sum([(one, 1.0), (other, -1.0)], metric, study)


def _sum(weights: Iterable[tuple[Arm, float]], metric: str, study: Study) -> stats.Contrast:
    images = study.config.images == "such"
    return stats.Contrast(weights={sample_of(arm, metric, images): weight for arm, weight in weights})


def _minus(one: stats.Contrast, other: stats.Contrast) -> stats.Contrast:
    weights = dict(one.weights)
    for sample, weight in other.weights.items():
        weights[sample] = weights.get(sample, 0.0) - weight
    return stats.Contrast(weights=weights)
