import numpy as np
import pytest
from scipy import stats as reference

from vitexp.study.fits import half_width, resamples


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_few_seeds_are_resampled_exactly(n):
    rows, probabilities = resamples(n)
    assert {2: 3, 3: 10, 5: 126, 6: 462}[n] == len(rows) == len({tuple(row) for row in rows})
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    multinomial = reference.multinomial(n, np.full(n, 1 / n))
    assert probabilities == pytest.approx(multinomial.pmf(rows), rel=1e-9)


def test_many_seeds_are_drawn_the_same_way_every_time():
    first, second = resamples(9), resamples(9)
    assert (first[0] == second[0]).all()
    assert (first[0].sum(axis=1) == 9).all()
    assert first[0].mean() == pytest.approx(1)
    assert len(first[0]) == 1000


@pytest.mark.parametrize("n", [3, 5])
def test_for_a_mean_the_interval_is_that_of_student(n):
    values = np.random.default_rng(n).normal(size=n)
    rows, probabilities = resamples(n)
    low, high = reference.t.interval(0.95, n - 1, values.mean(), reference.sem(values))
    assert half_width(rows @ values / n, probabilities, n) == pytest.approx((high - low) / 2, rel=1e-9)
