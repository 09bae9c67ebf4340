"""What the paper says of compute for equal accuracy: of ViTs beside ResNets (Figure 5), of depth beside width (8)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from vitexp import stats
from vitexp.study.arm import Arm
from vitexp.study.claims import families
from vitexp.study.claims.contrast import Contrast, Finding, by_context, setting_of
from vitexp.study.claims.families import family_of, flops_of
from vitexp.study.fits import equal_accuracy
from vitexp.study.lines import LENGTHS


def compute_saving(arms: Sequence[Arm], metric: str) -> list[Finding]:
    """ViTs beside ResNets, of any size and trained for any time: how many times less compute for equal accuracy."""
    found = []
    for label, group in by_context(arms, [*families.NETWORK, *LENGTHS]):
        vits, resnets = ([arm for arm in group if family_of(arm) == kind] for kind in (families.VIT, families.RESNET))
        finding = _compared("ViT", vits, "ResNet", resnets, metric)
        found += [Finding(context=label, **finding)] if finding else []
    return found


def depth_over_width(arms: Sequence[Arm], metric: str) -> list[Finding]:
    """Networks that differ from one base in depth alone, beside those that differ from it in width alone."""
    found = []
    for label, group in by_context(arms, families.NETWORK):
        deep, wide = _around_a_base(group)
        finding = _compared("depth", deep, "width", wide, metric)
        found += [Finding(context=label, **finding)] if finding else []
    return found


def _compared(one: str, arms: Sequence[Arm], other: str, beside: Sequence[Arm], metric: str) -> dict[str, Any]:
    """The fields of a finding; none where either side has less than the two networks that make a line."""
    lines = [[arm for arm in side if flops_of(arm)] for side in (arms, beside)]
    if any(len(line) < 2 for line in lines):
        return {}
    behind = tuple({id(arm): arm for line in lines for arm in line}.values())
    equal = equal_accuracy(*([(flops_of(arm) or math.inf, arm.values(metric)) for arm in line] for line in lines))
    if not equal.gaps:
        return {"arms": behind, "hindrance": f"the networks of {one} and {other} share no seed"}
    if not equal.log_factors:
        return {"arms": behind, "hindrance": f"{one} and {other} reach no common accuracy"}
    difference = stats.paired_difference(equal.log_factors, dict.fromkeys(equal.log_factors, 0.0))
    contrast = Contrast(one=one, other=other, expected="higher", difference=difference, arms=behind)
    count = f"{len(equal.apart)} of {len(equal.gaps)} seeds"
    why = f"at {count} {one} and {other} reach no common accuracy, and the others would be a choice"
    return {"contrasts": (contrast,), "arms": behind, "hindrance": why if equal.apart else ""}


def _around_a_base(arms: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """The arms that differ from one arm in depth, and in width (and heads): those of the arm that has most of both."""
    sized = [(sizes, arm) for arm in arms if (sizes := _sizes(arm)) is not None]
    best: tuple[list[Arm], list[Arm]] = ([], [])
    for base, _ in sized:
        deep = _alike(sized, base, lambda w, d, m, h, p: (w, m, h, p))
        wide = _alike(sized, base, lambda w, d, m, h, p: (d, m, p))
        if min(len(deep), len(wide)) > min(map(len, best)):
            best = deep, wide
    return best


def _alike(
    sized: Sequence[tuple[tuple[int, ...], Arm]], base: tuple[int, ...], kept: Callable[..., tuple[int, ...]]
) -> list[Arm]:
    return [arm for sizes, arm in sized if kept(*sizes) == kept(*base)]


def _sizes(arm: Arm) -> tuple[int, ...] | None:
    """Width, depth, MLP width, heads and patch of a network that is named by them."""
    match = families.sizes_in(str(setting_of(arm, "model.arch")))
    return tuple(map(int, match.groups()[1:])) if match and not match[1] else None
