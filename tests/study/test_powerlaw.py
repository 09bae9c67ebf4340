import numpy as np
import pytest
from scipy import optimize
from scipy import stats as reference

from vitexp.study.fits import PowerLaw, fit_power_law, half_width, resamples

SIZES = [64, 128, 256, 512, 1024]


def noisy(seed, a=3.0, b=0.7, c=0.01, spread=0.004, seeds=5, sizes=SIZES):
    noise = np.random.default_rng(seed).normal(0, spread, (seeds, len(sizes)))
    return a * np.array(sizes, dtype=float) ** -b + c + noise


def test_errors_that_follow_a_power_law_are_fitted_exactly():
    found = fit_power_law(SIZES, noisy(0, spread=0.0) + np.zeros((5, 1)))
    assert (found.a, found.b, found.c) == pytest.approx((3.0, 0.7, 0.01), rel=1e-3)
    assert found.miss < 1e-5
    assert found.error([64]) == pytest.approx(3.0 * 64**-0.7 + 0.01, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_that_of_scipy(seed):
    errors = noisy(seed)
    mean = errors.mean(axis=0)
    (log_a, b, c), _ = optimize.curve_fit(
        lambda n, log_a, b, c: np.exp(log_a) * n**-b + c, np.array(SIZES), mean, p0=[1, 0.7, 0.01],
        sigma=np.sqrt(mean * (1 - mean)), bounds=([-20, 0.01, 0], [20, 3, 1]), ftol=1e-12, xtol=1e-12, gtol=1e-12,
    )  # fmt: skip
    found = fit_power_law(SIZES, errors)
    assert (found.a, found.b, found.c) == pytest.approx((np.exp(log_a), b, c), rel=1e-4)
    assert found.miss == pytest.approx(np.abs(np.exp(log_a) * np.array(SIZES) ** -b + c - mean).max(), rel=1e-3)


def test_a_floor_below_zero_is_held_at_zero():
    errors = noisy(1, c=-0.02, spread=0.002)
    found = fit_power_law(SIZES, errors)
    assert found.c == 0.0
    mean = errors.mean(axis=0)
    (log_a, b), _ = optimize.curve_fit(
        lambda n, log_a, b: np.exp(log_a) * n**-b, np.array(SIZES), mean, p0=[1, 0.7], sigma=np.sqrt(mean * (1 - mean))
    )
    assert (found.a, found.b) == pytest.approx((np.exp(log_a), b), rel=1e-3)


def test_the_interval_is_wider_for_noisier_seeds():
    calm, wild = (fit_power_law(SIZES, noisy(2, spread=spread)) for spread in (0.001, 0.01))
    width = [found.b_interval[1] - found.b_interval[0] for found in (calm, wild)]
    assert width[1] > 3 * width[0]
    assert calm.b_interval[0] < calm.b < calm.b_interval[1]
    assert calm.c_interval[0] <= calm.c <= calm.c_interval[1]


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (noisy(0)[:, :3], "three numbers need 4 sizes, and there are 3"),
        (noisy(0)[:2], "needs 3 seeds with every size, and there are 2"),
        (noisy(0, a=0.0, c=0.2, spread=0.02), "do not pin it down"),
    ],
)
def test_where_a_fit_cannot_be_had_it_says_why(errors, reason):
    found = fit_power_law(SIZES[: errors.shape[1]], errors)
    assert isinstance(found, str)
    assert reason in found


def test_a_fit_that_leaves_the_interval_of_a_mean_counts_it():
    assert fit_power_law(SIZES, noisy(0)).outside == 0
    kinked = noisy(0, spread=0.001)
    kinked[:, 2] += 0.02
    errors, found = kinked, fit_power_law(SIZES, kinked)
    half = [reference.t.interval(1 - 0.05 / 5, 4, 0, reference.sem(column))[1] for column in errors.T]
    misses = np.abs(found.error(SIZES) - errors.mean(axis=0))
    assert found.outside == sum(miss > end for miss, end in zip(misses, half, strict=True)) >= 1
    assert found.sizes == 5
    assert found.outside_at == tuple(size for size, miss, end in zip(SIZES, misses, half, strict=True) if miss > end)


def test_no_errors_at_all_are_no_trouble():
    assert fit_power_law(SIZES, np.zeros((3, 5))) == "the error does not fall with data"
    assert fit_power_law(SIZES, np.full((3, 5), 0.5)) == "the error does not fall with data"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_the_exponent_covers_as_it_says(seeds):
    fits = [fit_power_law(SIZES, noisy(100 + trial, seeds=seeds, spread=0.005)) for trial in range(300)]
    known = [found for found in fits if isinstance(found, PowerLaw)]
    hits = sum(found.b_interval[0] <= 0.7 <= found.b_interval[1] for found in known)
    assert len(known) > 250
    assert 0.86 < hits / len(known) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_the_floor_covers_as_it_says(seeds):
    """Over a decade more of sizes, so that the floor can be seen at all; it is far from its bound at 0."""
    sizes = [64, 256, 1024, 4096, 16384]
    fits = [
        fit_power_law(sizes, noisy(500 + trial, c=0.05, seeds=seeds, spread=0.004, sizes=sizes)) for trial in range(300)
    ]
    known = [found for found in fits if isinstance(found, PowerLaw)]
    hits = sum(found.c_interval[0] <= 0.05 <= found.c_interval[1] for found in known)
    assert len(known) > 280
    assert abs(hits / len(known) - 0.95) < 0.05


@pytest.mark.slow
def test_a_true_power_law_rarely_leaves_the_intervals_of_its_means():
    fits = [fit_power_law(SIZES, noisy(900 + trial, spread=0.005)) for trial in range(300)]
    left = [found.outside for found in fits if isinstance(found, PowerLaw)]
    assert sum(count > 0 for count in left) / len(left) < 0.05


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
