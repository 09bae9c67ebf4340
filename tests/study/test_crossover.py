import math

import numpy as np
import pytest
from scipy import stats as reference

from vitexp.study.fits import crossings, find_crossover

SIZES = [100, 200, 400, 800]
LEVELS = [-0.01, -0.005, 0, 0.005, 0.01]


def around(mean, spread=0.001, seeds=5, seed=0):
    return np.array(mean) + np.random.default_rng(seed).normal(0, spread, (seeds, len(mean)))


@pytest.mark.parametrize(
    ("differences", "found"),
    [
        ([-1, -1, 1, 1], [math.sqrt(200 * 400)]),
        ([-3, -1, 3, 4], [200 * 2**0.25]),
        ([1, 1, 1, 1], []),
        ([-1, 0, 1, 1], [200.0]),
        ([-1, 0, 0, 1], [math.sqrt(200 * 400)]),
        ([-1, 0, -1, -1], []),
        ([0, 0, 1, 1], []),
        ([0, 0, 0, 0], []),
        ([-1, 1, -1, 1], [math.sqrt(20_000), math.sqrt(80_000), math.sqrt(320_000)]),
    ],
)
def test_signs_change_where_they_should_in_the_logarithm_of_the_size(differences, found):
    assert crossings(SIZES, differences) == pytest.approx(found, rel=1e-12)


def test_a_clear_crossing_has_a_finite_interval_around_it():
    found = find_crossover(SIZES, around([-0.05, -0.02, 0.02, 0.05]))
    assert found.shown
    assert found.low < found.size < found.high
    assert found.low > 200
    assert found.high < 400
    assert (found.crossings, found.leader, found.seeds) == (1, -1, 5)


def test_a_crossing_near_the_last_size_may_lie_beyond_it():
    found = find_crossover(SIZES, np.add.outer(LEVELS, [-0.05, -0.04, -0.02, 0.005]))
    assert found.size is not None
    assert found.high == math.inf
    assert found.low > 0
    assert not found.shown


def test_a_crossing_near_the_first_size_may_lie_before_it():
    found = find_crossover(SIZES, np.add.outer(LEVELS, [-0.005, 0.03, 0.04, 0.05]))
    assert found.size is not None
    assert found.low == 0.0
    assert not found.shown


def test_noise_alone_shows_no_crossing():
    shown = [find_crossover(SIZES, around([0, 0, 0, 0], spread=0.01, seed=seed)).shown for seed in range(100)]
    assert sum(shown) <= 5


def test_one_arm_ahead_everywhere_is_no_crossing_but_has_a_leader():
    found = find_crossover(SIZES, around([0.05, 0.04, 0.03, 0.02]))
    assert (found.size, found.low, found.high, found.crossings, found.leader) == (None, None, None, 0, 1)


def test_several_crossings_are_counted_and_none_is_chosen():
    found = find_crossover(SIZES, around([-0.05, 0.05, -0.05, 0.05]))
    assert (found.size, found.low, found.high, found.crossings) == (None, None, None, 3)


def test_under_three_seeds_there_is_no_interval():
    found = find_crossover(SIZES, around([-0.05, -0.02, 0.02, 0.05], seeds=2))
    assert found.size is not None
    assert (found.low, found.high, found.shown) == (None, None, False)


def test_the_ends_are_where_student_s_interval_of_the_difference_leaves_zero():
    differences = around([-0.05, -0.02, 0.02, 0.05], spread=0.01, seed=4)
    found = find_crossover(SIZES, differences)
    for end in (found.low, found.high):
        at = [np.interp(np.log(end), np.log(SIZES), seed) for seed in differences]
        assert reference.ttest_1samp(at, 0).pvalue == pytest.approx(0.05, abs=0.002)


def test_without_any_spread_the_interval_is_the_crossing():
    found = find_crossover(SIZES, np.tile([-0.05, -0.02, 0.05, 0.05], (3, 1)))
    assert found.low == found.high == found.size == pytest.approx(200 * 2 ** (2 / 7))


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_covers_the_crossing_as_it_says(seeds):
    """Half of the spread is the seed's own level, so that the crossings of single seeds are spread too."""
    truth = 200 * 2**0.4
    mean = np.interp(np.log(SIZES), np.log([100, truth, 800]), [-0.06, 0, 0.06])
    mean[1:3] = [-0.4 * 0.03, 0.6 * 0.03]  # straight between 200 and 400, as the interpolation takes it
    level = np.random.default_rng(9).normal(0, 0.005, (400, seeds, 1))
    found = [find_crossover(SIZES, around(mean, 0.005, seeds, trial) + level[trial]) for trial in range(400)]
    known = [one for one in found if one.low is not None]
    assert len(known) > 350
    assert 0.92 < sum(one.low <= truth <= one.high for one in known) / len(known) < 0.98
