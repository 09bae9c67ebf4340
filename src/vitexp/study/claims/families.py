"""Plain ViTs, hybrids and ResNets of one study, compared where they cost alike (the paper's Figures 4 and 5)."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from vitexp import stats
from vitexp.study.arm import Arm, is_number
from vitexp.study.claims.contrast import Contrast, Finding, by_context, setting_of
from vitexp.study.fits import find_crossover
from vitexp.study.lines import LENGTHS
from vitexp.study.table import Label

VIT, HYBRID, RESNET = "vit", "hybrid", "resnet"
NETWORK = ("model.arch", "model.stem")
_SIZES = re.compile(r"(?:(\w+)\+)?w(\d+)d(\d+)m(\d+)h(\d+)/(\d+)")
_NEAR, _COMPARABLE = 1.1, 2.0
"""Factors of compute: up to the first it counts as equal, up to the second as comparable."""


def family_of(arm: Arm) -> str:
    """Which kind of network an arm trains, by the names that its runs give it: B/16, R50+B/16, R50x1."""
    arch, stem = str(setting_of(arm, "model.arch")), setting_of(arm, "model.stem")
    if is_resnet(arch):
        return RESNET
    return HYBRID if "+" in arch or stem not in (None, "patch", "auto") else VIT


def is_resnet(name: str) -> bool:
    """Whether an architecture's name is that of a ResNet, such as R50x1."""
    return re.fullmatch(r"R\d+x[\d.]+", name) is not None


def sizes_in(name: str) -> re.Match[str] | None:
    """The parts of a name made of sizes, w32d2m64h2/4: stem (if any), width, depth, MLP width, heads and patch."""
    return _SIZES.fullmatch(name)


def network(arm: Arm) -> str:
    """The network of an arm in a word; the stem is named, as in R50+B/16, where the architecture does not tell it."""
    arch, stem = str(setting_of(arm, "model.arch")), str(setting_of(arm, "model.stem"))
    return arch if "+" in arch or family_of(arm) != HYBRID else f"{stem.replace('resnet', 'R')}+{arch}"


def flops_of(arm: Arm) -> float | None:
    """What one run of an arm cost in training."""
    return next((run.train_flops for run in arm.runs.values() if run.train_flops), None)


def hybrid_lead(arms: Sequence[Arm], metric: str) -> list[Finding]:
    """The smallest hybrid that a plain ViT of equal compute can be set beside, minus that ViT."""
    found = []
    for label, hybrids, plain in _hybrids_and_plain(arms):
        leads = _leads(hybrids, plain, metric)
        if not leads:
            found.append(Finding(context=label, arms=(*hybrids, *plain), hindrance=_beyond(hybrids, plain)))
            continue
        hybrid, values, beside = leads[0]
        contrast = Contrast(
            one=network(hybrid),
            other="plain ViT of equal compute",
            expected="higher",
            difference=stats.paired_difference(hybrid.values(metric), values),
            arms=(hybrid, *beside),
        )
        found.append(Finding(context=label, contrasts=(contrast,), arms=contrast.arms))
    return found


def hybrid_fade(arms: Sequence[Arm], metric: str) -> list[Finding]:
    """The lead of the largest hybrid minus the lead of the smallest, each over a plain ViT of equal compute."""
    found = []
    for label, hybrids, plain in _hybrids_and_plain(arms):
        leads = _leads(hybrids, plain, metric)
        if len(leads) < 2:
            why = "it takes hybrids of two sizes, each beside plain ViTs that cost as much"
            found.append(Finding(context=label, arms=(*hybrids, *plain), hindrance=why))
            continue
        (small, at_small, beside_small), (large, at_large, beside_large) = leads[0], leads[-1]
        contrast = Contrast(
            one=f"lead of {network(large)}",
            other=f"lead of {network(small)}",
            expected="lower",
            difference=_change(small.values(metric), at_small, large.values(metric), at_large),
            arms=(small, *beside_small, large, *beside_large),
        )
        found.append(Finding(context=label, contrasts=(contrast,), arms=contrast.arms))
    return found


def data_hunger(arms: Sequence[Arm], metric: str, size_key: str) -> list[Finding]:
    """Each ViT with the ResNet nearest in cost: how far it is behind on the least data, and what more data changes."""
    found = []
    for label, group in by_context(arms, [*NETWORK, size_key]):
        vits, resnets = (_by_size(group, family, size_key) for family in (VIT, RESNET))
        for name, vit in vits.items() if resnets else ():
            other = min(resnets, key=lambda key: _apart(vit, resnets[key]))
            found.append(_hunger(vit, resnets[other], metric, name, other, label))
    return found


def _hunger(
    vit: Mapping[float, Arm], resnet: Mapping[float, Arm], metric: str, name: str, other: str, label: Label
) -> Finding:
    behind = tuple(arm for series in (vit, resnet) for arm in series.values())
    sizes = sorted(vit.keys() & resnet.keys())
    seeds = sorted(set.intersection(*(set(arm.values(metric)) for arm in behind)))
    if _apart(vit, resnet) > _COMPARABLE:
        why = f"{name} and {other} differ {_apart(vit, resnet):.1f} times in compute; up to {_COMPARABLE:g} is compared"
        return Finding(context=label, arms=behind, hindrance=why)
    if len(sizes) < 2 or not seeds:
        return Finding(context=label, arms=behind, hindrance=f"{name} and {other} share too few sizes or seeds")
    ends = [(vit[size].values(metric), resnet[size].values(metric)) for size in (sizes[0], sizes[-1])]
    small, large = (f"{size:,.0f} images" for size in (sizes[0], sizes[-1]))
    behind_small = tuple(series[sizes[0]] for series in (vit, resnet))
    contrasts = (
        Contrast(
            one=name,
            other=f"{other} on {small}",
            expected="lower",
            difference=stats.paired_difference(*ends[0]),
            arms=behind_small,
        ),
        Contrast(
            one=f"{name} − {other} on {large}",
            other=f"the same on {sizes[0]:,.0f}",
            expected="higher",
            difference=_change(*ends[0], *ends[1]),
            arms=behind,
        ),
    )
    gaps = [[vit[size].values(metric)[seed] - resnet[size].values(metric)[seed] for size in sizes] for seed in seeds]
    crossover = find_crossover(sizes, np.array(gaps))
    return Finding(context=label, contrasts=contrasts, arms=behind, crossover=crossover)


def _hybrids_and_plain(arms: Sequence[Arm]) -> list[tuple[Label, list[Arm], list[Arm]]]:
    """Hybrids and plain ViTs that cost is known of, cheapest first, where a group of equal other factors has both."""
    found = []
    for label, group in by_context(arms, [*NETWORK, *LENGTHS]):
        known = sorted((arm for arm in group if flops_of(arm)), key=lambda arm: flops_of(arm) or 0.0)
        hybrids, plain = ([arm for arm in known if family_of(arm) == family] for family in (HYBRID, VIT))
        if hybrids and plain:
            found.append((label, hybrids, plain))
    return found


def _leads(
    hybrids: Sequence[Arm], plain: Sequence[Arm], metric: str
) -> list[tuple[Arm, dict[int, float], tuple[Arm, ...]]]:
    """Each hybrid with the accuracy by seed of a plain ViT that costs as much, and the plain arms that tell it."""
    found = []
    for hybrid in hybrids:
        beside = _bracket(flops_of(hybrid) or 0.0, plain)
        values = _at_compute(flops_of(hybrid) or 0.0, beside, metric)
        if hybrid.values(metric).keys() & values.keys():
            found.append((hybrid, values, beside))
    return found


def _bracket(flops: float, plain: Sequence[Arm]) -> tuple[Arm, ...]:
    """The plain arms next below and next above in compute; one that costs the same stands alone."""
    below = [arm for arm in plain if (flops_of(arm) or 0.0) <= flops * _NEAR]
    above = [arm for arm in plain if (flops_of(arm) or 0.0) >= flops / _NEAR]
    if not below or not above:
        return ()
    equal = [arm for arm in below if arm in above]
    return (equal[-1],) if equal else (below[-1], above[0])


def _at_compute(flops: float, beside: Sequence[Arm], metric: str) -> dict[int, float]:
    """By seed, the line between the arms in the logarithm of compute."""
    if not beside:
        return {}
    seeds = set.intersection(*(set(arm.values(metric)) for arm in beside))
    known = [math.log(flops_of(arm) or 1.0) for arm in beside]
    return {
        seed: float(np.interp(math.log(flops), known, [arm.values(metric)[seed] for arm in beside])) for seed in seeds
    }


def _beyond(hybrids: Sequence[Arm], plain: Sequence[Arm]) -> str:
    costs = [" to ".join(f"{cost:.2g}" for cost in _span(arms)) for arms in (hybrids, plain)]
    return f"no plain ViT costs what a hybrid does: {costs[1]} beside {costs[0]} TFLOP a run"


def _span(arms: Sequence[Arm]) -> list[float]:
    costs = [(flops_of(arm) or 0.0) / 1e12 for arm in arms]
    return list(dict.fromkeys((min(costs), max(costs))))


def _by_size(arms: Sequence[Arm], family: str, size_key: str) -> dict[str, dict[float, Arm]]:
    """The arms of a family as series over data size, by the name of the network."""
    found: dict[str, dict[float, Arm]] = {}
    for arm in arms:
        size = _images(arm, size_key)
        if family_of(arm) == family and size is not None:
            found.setdefault(network(arm), {})[size] = arm
    return found


def _images(arm: Arm, size_key: str) -> float | None:
    """The training images of an arm where its runs tell them, or else the value of the key."""
    value = next((run.data["train_images"] for run in arm.runs.values() if "train_images" in run.data), None)
    value = arm.factors.get(size_key) if value is None else value
    return float(value) if value is not None and is_number(value) else None


def _apart(one: Mapping[float, Arm], other: Mapping[float, Arm]) -> float:
    """How many times the compute of two series differs at their smallest sizes; infinite where it is not recorded."""
    costs = [flops_of(series[min(series)]) for series in (one, other)]
    if not costs[0] or not costs[1]:
        return math.inf
    return max(costs[0] / costs[1], costs[1] / costs[0])


def _change(
    a_first: Mapping[int, float], b_first: Mapping[int, float], a_last: Mapping[int, float], b_last: Mapping[int, float]
) -> stats.Difference:
    """How the difference of two arms changes from a first place to a last, paired by seed."""
    first, last = (
        {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()} for a, b in ((a_first, b_first), (a_last, b_last))
    )
    return stats.paired_difference(last, first)
