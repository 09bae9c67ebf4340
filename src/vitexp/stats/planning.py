"""How many seeds a study needs, and when it may stop: looks that are planned ahead, with the error spent over them.

A study that stops when its seeds show something shows something too often: with a look after each of 3 to 10 seeds, 5 %
become 16 %. Here the looks are fixed before the first run, and look k may err with a share of 5 % that is its own; what
it finds stands. Whatever the looks have in common, the study errs in at most the sum, 5 %. Source: K. Lan, D. DeMets,
1983; the share spent up to a look is the square of the seeds' share (K. Kim, D. DeMets, 1987).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import special

from vitexp.stats.crossed import Contrast, Sample, Variance
from vitexp.stats.family import NO_DIFFERENCE, Asked, Judgement, judge
from vitexp.stats.samples import ALPHA, MINIMUM_SEEDS, POWER, quantile

Key = TypeVar("Key", bound=Hashable)
Enough = Callable[[float, float], bool]
"""Whether a critical value and a standard error are what is wanted."""
_GROWTH = 1.5
_DRAWS = 1 << 15
SENSIBLE_SEEDS, MOST_SEEDS = 1000, 10_000
_UNLIKELY = 0.1
"""Tail of the uncertainty of a variance, on each side of a range of numbers of seeds."""


def looks(most: int) -> tuple[int, ...]:
    """After how many seeds to look, up to `most`: 3, 5, 8, 12, 18, ..., each half as many again.

    Raises: ValueError for fewer than the seeds of a verdict.
    """
    if most < MINIMUM_SEEDS:
        raise ValueError(f"{most} seeds an arm are below the {MINIMUM_SEEDS} that a verdict takes; allow more runs")
    found = [MINIMUM_SEEDS]
    while (following := math.ceil(_GROWTH * found[-1])) < most:
        found.append(following)
    return (*found, most) if most > MINIMUM_SEEDS else (most,)


def spending(after: Sequence[int], alpha: float = ALPHA) -> tuple[float, ...]:
    """What each look may err with; the sum is `alpha`."""
    spent = [alpha * (n / after[-1]) ** 2 for n in after]
    return tuple(now - before for now, before in zip(spent, [0.0, *spent], strict=False))


def error_of_looks(after: Sequence[int], alpha: float = ALPHA) -> float:
    """How often sides that do not differ show a difference at one of the looks, each at the level `alpha`.

    Student's t over the seeds up to each look, in draws that are always the same; known to within 0.5 %. Source: P.
    Armitage, C. McPherson, B. Rowe, Repeated significance tests on accumulating data, 1969.
    """
    draw, shown = np.random.Generator(np.random.Philox(key=2)), np.zeros(_DRAWS, dtype=bool)
    total, squares, before = np.zeros(_DRAWS), np.zeros(_DRAWS), 0
    for n in after:
        mean = draw.standard_normal(_DRAWS)  # of the new seeds, times the root of their number
        total += mean * math.sqrt(n - before)
        squares += mean**2 + 2 * draw.standard_gamma((n - before - 1) / 2, _DRAWS)
        deviation = np.sqrt((squares - total**2 / n) / (n - 1))
        shown |= np.abs(total) > quantile(n - 1, alpha) * math.sqrt(n) * deviation
        before = n
    return float(shown.mean())


@dataclass(frozen=True)
class Decision:
    """What is known of a comparison, after how many seeds, and whether that is its end."""

    judgement: Judgement
    seeds: int
    decided: bool
    why: str = ""
    """Why it was given up, where no verdict ends it"""


def decide(
    asked: Mapping[Key, Asked], order: Sequence[int], after: Sequence[int], *, images: bool, alpha: float = ALPHA
) -> dict[Key, Decision]:
    """Every comparison at the first look that decides it, or at the last whose seeds are all there.

    `order` are the seeds in the order in which they were planned. A comparison whose sides lack seeds of a look waits.
    """
    found: dict[Key, Decision] = {}
    for n, share in zip(after, spending(after, alpha), strict=True):
        going = {key: one for key, one in asked.items() if key not in found or not found[key].decided}
        here = {key: one for key, one in _up_to(going, order[:n]).items() if len(one.contrast.seeds) == n}
        for key, judged in judge(here, images=images, alpha=share).items() if here else ():
            why = _hopeless(judged, asked[key], n, after[-1])
            found[key] = Decision(judged, n, judged.verdict != NO_DIFFERENCE or bool(why), why)
    return found


def _up_to(asked: Mapping[Key, Asked], seeds: Sequence[int]) -> dict[Key, Asked]:
    """The same comparisons over these seeds alone; samples that several have stay one."""
    cut: dict[Sample, Sample] = {}
    for sample in (sample for one in asked.values() for sample in one.contrast.weights):
        kept = {seed: value for seed, value in sample.values.items() if seed in seeds}
        cut.setdefault(sample, replace(sample, values=kept))
    return {
        key: replace(one, contrast=Contrast(weights={cut[sample]: w for sample, w in one.contrast.weights.items()}))
        for key, one in asked.items()
    }


def _hopeless(judged: Judgement, asked: Asked, n: int, most: int) -> str:
    """Why no number of seeds up to `most` can decide a comparison; empty where it may."""
    variance = judged.variance
    if judged.verdict != NO_DIFFERENCE or variance is None or n == most:
        return ""
    reach = abs(judged.mean) + math.sqrt(variance.total)  # a difference that may be true
    room = max(reach, (asked.margin or 0.0) - max(0.0, abs(judged.mean) - math.sqrt(variance.total)))
    least = float(-special.ndtri(ALPHA / 2)) * math.sqrt(variance.images)
    return "only more test images would decide it" if least > room else ""


@dataclass(frozen=True)
class Needed:
    """How many seeds a comparison takes, with a range from how well its variance is known; None: no number does."""

    seeds: int | None
    low: int | None = None
    high: int | None = None


def seeds_for_effect(judged: Judgement, effect: float, alpha: float) -> Needed:
    """Until a true difference of `effect` is shown with probability `POWER`; `alpha` is the level of one comparison."""
    return _needed(judged, alpha, shows(effect))


def half_the_room(size: float, alpha: float, power: float = POWER) -> float:
    """Half of the variance at which a test at `alpha` shows a difference of `size` with this power: for the images."""
    return (size / float(-special.ndtri(alpha / 2) + special.ndtri(power))) ** 2 / 2


def images_within(variance: Variance, room: float) -> int:
    """Test images with which their part of the variance is no more than `room`."""
    return math.ceil(variance.images * variance.count / room)


def seeds_and_images(variance: Variance, n: int, effect: float, alpha: float) -> tuple[int | None, int | None]:
    """What shows a difference of `effect` at `alpha` with probability `POWER`, by the variance over `n` seeds so far.

    Seeds, and test images where those at hand are too few; no seeds where neither shows it.

    More seeds divide their part of the variance and leave that of the images. Where the images are too few, seeds and
    images share evenly what the variance may be. Beyond `SENSIBLE_SEEDS` nobody trains.
    """
    seeds = fewest_seeds(variance, n, alpha, shows(effect), 1.0)
    if seeds is not None and seeds <= SENSIBLE_SEEDS:
        return max(seeds, n + 1), None
    half = half_the_room(effect, alpha)
    more = math.ceil(variance.of_seeds * n / half) if half and variance.images > half else SENSIBLE_SEEDS + 1
    return (max(more, n), images_within(variance, half)) if more <= SENSIBLE_SEEDS else (None, None)


def shows(size: float, power: float = POWER) -> Enough:
    """What shows a true difference of this size with this probability."""
    errors = float(special.ndtri(power))
    return lambda critical, error: (critical + errors) * error <= size


def seeds_for_margin(judged: Judgement, margin: float, alpha: float) -> Needed:
    """Until sides that do not differ are shown to be equivalent within `margin` with probability `POWER`."""
    return _needed(judged, alpha, shows(margin, (1 + POWER) / 2))


def _needed(judged: Judgement, alpha: float, enough: Enough) -> Needed:
    if judged.variance is None:
        return Needed(None)
    df = judged.variance.df
    ends = [df / float(special.chdtri(df, tail)) for tail in (_UNLIKELY, 1 - _UNLIKELY)]
    found = [fewest_seeds(judged.variance, judged.n, alpha, enough, scale) for scale in (1.0, *ends)]
    return Needed(*found)


def fewest_seeds(variance: Variance, n: int, alpha: float, enough: Enough, scale: float) -> int | None:
    """The fewest seeds that are enough, if the seeds' variance is `scale` times what was estimated from `n`."""

    def is_enough(seeds: int) -> bool:
        there = variance.with_seeds(scale * n / seeds, (seeds - 1) / (n - 1))
        return enough(float(there.critical(alpha)), math.sqrt(there.total))

    if not is_enough(MOST_SEEDS):
        return None
    low, high = MINIMUM_SEEDS - 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
