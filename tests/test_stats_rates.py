"""How often our statistics err, by simulation of whole studies: arms that share a baseline, seeds and a test set."""

import math

import numpy as np
import pytest

from vitexp import stats
from vitexp.study.claims.verdicts import CONTRADICT, SUPPORT, verdict_of

SEEDS, LEVEL = 5, 0.9


def studies(count, effects, *, seed, images=None, spread=0.01):
    """Families of differences to one baseline; with `images`, accuracies are counts on so many test images."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        shared = draw.normal(0, 0.02, SEEDS)
        own = draw.normal(0, spread, (1 + len(effects), SEEDS))
        values = LEVEL + shared + own + np.array([0.0, *effects])[:, None]
        if images:
            values = draw.binomial(images, np.clip(values, 0, 1)) / images
        base, *arms = (dict(enumerate(map(float, row))) for row in values)
        yield {k: stats.paired_difference(arm, base) for k, arm in enumerate(arms)}


def at_most(count, runs, rate):
    """Not more often than promised, within three and a half standard errors of the simulation."""
    return count / runs <= rate + 3.5 * math.sqrt(rate * (1 - rate) / runs)


def about(count, runs, rate):
    return abs(count / runs - rate) <= 3.5 * math.sqrt(rate * (1 - rate) / runs)


def shown(judgement):
    return judgement.p_holm <= 0.05


@pytest.mark.parametrize("images", [None, 360, 10_000])
def test_arms_that_share_a_baseline_rarely_show_any_difference_where_there_is_none(images):
    found = [stats.judge(family) for family in studies(1000, [0.0] * 7, seed=1, images=images)]
    assert at_most(sum(any(map(shown, judged.values())) for judged in found), 1000, 0.05)


def test_true_differences_beside_them_do_not_make_false_ones_more_frequent():
    found = [stats.judge(family) for family in studies(1000, [-0.3, -0.3, -0.3, 0.0, 0.0, 0.0, 0.0], seed=2)]
    false = sum(any(shown(judged[k]) for k in (3, 4, 5, 6)) for judged in found)
    bonferroni = sum(any(7 * judged[k].difference.p <= 0.05 for k in (3, 4, 5, 6)) for judged in found)
    assert at_most(false, 1000, 0.05)
    assert false > bonferroni > 0  # what the true ones no longer need is given to the rest
    assert sum(all(shown(judged[k]) for k in (0, 1, 2)) for judged in found) > 990


@pytest.mark.parametrize("images", [None, 360])
def test_intervals_of_differences_cover_the_truth_on_counted_images_too(images):
    families = list(studies(1500, [-0.03], seed=3, images=images))
    hits = sum(found[0].low <= -0.03 <= found[0].high for found in families if found[0].low is not None)
    assert about(hits, 1500, 0.95)


@pytest.mark.parametrize("side", [-1, 1])
def test_at_the_margin_the_equivalence_test_errs_exactly_as_often_as_it_says(side):
    families = studies(4000, [side * 0.05], seed=4 + side)
    called = sum(stats.equivalence(found[0], 0.05) <= 0.05 for found in families)
    assert about(called, 4000, 0.05)


def test_a_family_at_the_margin_is_rarely_called_equivalent_anywhere():
    found = [stats.judge(family, margin=0.03) for family in studies(1000, [0.03, -0.03, 0.03], seed=8)]
    assert at_most(sum(any(j.p_equivalence <= 0.05 for j in judged.values()) for judged in found), 1000, 0.05)


def test_arms_that_are_alike_are_called_so_when_the_margin_is_wide():
    found = [stats.judge(family, margin=0.05) for family in studies(300, [0.0, 0.0], seed=9)]
    assert sum(all(j.p_equivalence <= 0.05 for j in judged.values()) for judged in found) > 290


def test_the_detectable_effect_of_a_family_is_detected_in_it():
    """Planned with the true spread; the correction gives back some of what the strictest step takes."""
    effect = stats.minimum_detectable_effect(0.01 * math.sqrt(2), SEEDS, 0.05 / 3)
    found = [stats.judge(family) for family in studies(1500, [effect, 0.0, 0.0], seed=10)]
    rate = sum(shown(judged[0]) for judged in found) / 1500
    assert 0.8 - 3.5 * math.sqrt(0.16 / 1500) < rate < 0.87


@pytest.mark.parametrize(
    ("expected", "effect", "wrong"),
    [
        ("alike", 0.0, CONTRADICT),
        ("alike", 0.03, SUPPORT),
        ("lower", 0.0, SUPPORT),
        ("higher", 0.0, SUPPORT),
        ("lower", -0.03, CONTRADICT),
    ],
)
def test_a_claim_is_rarely_judged_wrongly(expected, effect, wrong):
    families = studies(1000, [effect] * 3, seed=11)
    judged = [stats.judge(family, margin=0.03) for family in families]
    wrongly = sum(any(verdict_of(expected, one) == wrong for one in found.values()) for found in judged)
    assert at_most(wrongly, 1000, 0.05)
