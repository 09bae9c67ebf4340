"""How many seeds and images are still needed, against Student's t and simulated answers."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from vitexp import stats
from vitexp.stats.crossed import Variance
from vitexp.stats.planning import SENSIBLE_SEEDS, seeds_and_images
from vitexp.study.sides import seeds_to_run


def power(n, effect, sd, alpha):
    """Of the paired t-test, exactly, by the noncentral t distribution."""
    return 1 - reference.nct.cdf(reference.t.ppf(1 - alpha / 2, n - 1), n - 1, effect / sd * math.sqrt(n))


@pytest.mark.parametrize(("effect", "alpha"), [(0.02, 0.05), (0.01, 0.05), (0.02, 0.000125), (0.005, 0.001)])
def test_so_many_seeds_have_the_power_of_the_paired_test(effect, alpha):
    sd, n = 0.015, 5
    found, _ = seeds_and_images(Variance(((sd**2 / n, n - 1.0),)), n, effect, alpha)
    assert found is not None
    assert 0.77 < power(found, effect, sd, alpha) < 0.93
    assert power(found - 2, effect, sd, alpha) < 0.8


def test_images_that_are_too_few_are_said_to_be_and_how_many_would_do():
    n, count = 5, 359
    per_image, of_seeds = 0.3, 0.015**2 / n
    found, images = seeds_and_images(Variance(((of_seeds, 4.0),), per_image / count, count), n, 0.02, 0.05)
    assert images is not None
    assert images > count
    total = of_seeds * n / found + per_image / images
    distance = reference.norm.ppf(0.975) + reference.norm.ppf(0.8)
    assert distance * math.sqrt(total) == pytest.approx(0.02, rel=0.05)
    assert distance * math.sqrt(per_image / count) > 0.02  # with any number of seeds


@pytest.mark.parametrize("effect", [0.0, 1e-6])
def test_nothing_shows_a_difference_that_small(effect):
    assert seeds_and_images(Variance(((0.015**2 / 5, 4.0),)), 5, effect, 0.05) == (None, None)
    assert seeds_and_images(Variance(((0.015**2 / 5, 4.0),), 1e-4, 359), 5, effect, 0.05) == (None, None)


def test_what_is_needed_falls_with_the_effect_and_ends():
    variance = Variance(((0.015**2 / 5, 4.0),))
    found = [seeds_and_images(variance, 5, effect, 0.05)[0] for effect in (0.05, 0.02, 0.01, 0.005)]
    assert found == sorted(found)
    assert found[-1] < SENSIBLE_SEEDS


def test_so_many_seeds_decide_as_often_as_promised():
    """Planned from the truth; judged by the statistics themselves, as paired arms."""
    draw, sd, effect = np.random.default_rng(1), 0.015, 0.015
    total = seeds_and_images(Variance(((sd**2 / 8, 7.0),)), 8, effect, 0.05)[0]
    shown = 0
    for _ in range(400):
        common, own = draw.normal(0, 0.03, total), draw.normal(0, sd / math.sqrt(2), (2, total))
        base, arm = (stats.Sample(values=dict(enumerate(map(float, 0.9 + common + row)))) for row in own)
        arm = stats.Sample(values={seed: value + effect for seed, value in arm.values.items()})
        asked = stats.Asked(contrast=stats.Contrast(weights={arm: 1.0, base: -1.0}))
        shown += stats.judge({"": asked}, images=False)[""].is_different
    assert 0.8 - 3.5 * 0.02 < shown / 400 < 0.93


@pytest.mark.parametrize(
    ("base", "candidate", "total", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 5, ([3, 4], [3, 4])),
        ([0, 1, 2, 3, 4], [0, 1, 2], 6, ([5], [3, 4, 5])),
        ([0, 1], [7, 8], 3, ([7], [0, 1])),
        ([5, 6, 7], [5, 6, 7], 2, ([], [])),
        ([], [], 2, ([0, 1], [0, 1])),
    ],
)
def test_seeds_that_one_side_has_come_first(base, candidate, total, expected):
    assert seeds_to_run(base, candidate, total) == expected
