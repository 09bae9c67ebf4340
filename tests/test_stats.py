import math
import warnings

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from vitexp import stats

# Five seeds of two arms, as accuracies on 360 test images would look.
A = {0: 0.9472, 1: 0.9389, 2: 0.9528, 3: 0.9417, 4: 0.9444}
B = {0: 0.9361, 1: 0.9333, 2: 0.9389, 3: 0.9417, 4: 0.9278}
COLUMNS = [list(A.values()), list(B.values())]


def test_interval_is_scipys():
    found = stats.interval(COLUMNS[0])
    expected = reference.t.interval(0.95, 4, loc=np.mean(COLUMNS[0]), scale=reference.sem(COLUMNS[0]))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert (found.mean, found.sd, found.n) == pytest.approx((np.mean(COLUMNS[0]), np.std(COLUMNS[0], ddof=1), 5))


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.9, 0.9], [0.1 + 0.2, 0.3]])
def test_without_spread_there_is_no_interval(values):
    found = stats.interval(values)
    assert found.low is None
    assert found.high is None
    assert found.mean == pytest.approx(values[0])


@pytest.mark.parametrize("values", [[], [0.9, math.nan], [math.inf, 1.0]])
def test_values_that_are_not_numbers_are_refused(values):
    with pytest.raises(ValueError, match="at least one value, and all of them finite"):
        stats.interval(values)


def test_paired_difference_is_scipys():
    found = stats.paired_difference(A, B)
    expected = reference.ttest_rel(*COLUMNS)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)
    assert found.mean > 0
    assert found.seeds == (0, 1, 2, 3, 4)


def test_pairs_are_made_by_seed_not_by_position():
    shuffled = {seed: B[seed] for seed in (3, 0, 4, 2, 1)}
    assert stats.paired_difference(A, shuffled) == stats.paired_difference(A, B)


def test_a_seed_of_one_side_only_is_left_out():
    found = stats.paired_difference(A, {seed: B[seed] for seed in (1, 3, 4)} | {99: 0.1})
    assert found.seeds == (1, 3, 4)
    assert found.p == pytest.approx(reference.ttest_rel([A[s] for s in (1, 3, 4)], [B[s] for s in (1, 3, 4)]).pvalue)


def test_no_common_seed_is_an_error():
    with pytest.raises(ValueError, match=r"one side has \[0\], the other \[1\]"):
        stats.paired_difference({0: 0.5}, {1: 0.5})


def test_one_pair_has_neither_interval_nor_p():
    found = stats.paired_difference({7: 0.9}, {7: 0.8})
    assert (found.low, found.high, found.p, found.sd, found.n) == (None, None, None, None, 1)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.1, 0.0625), (-0.1, 0.0625)])
def test_identical_differences_get_the_exact_sign_flip_p(shift, p):
    found = stats.paired_difference({seed: value + shift for seed, value in A.items()}, A)
    flips = [abs(shift * np.mean(1 - 2 * np.array(signs))) for signs in np.ndindex(2, 2, 2, 2, 2)]
    assert np.mean([flip >= abs(shift) - 1e-12 for flip in flips]) == p
    assert (found.p, found.sd, found.low, found.high) == (p, 0.0, None, None)


@pytest.mark.parametrize(
    "p_values", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.9, 0.6], [0.02], [0.04] * 3, [0.0, 1.0, 0.02, 0.02]]
)
def test_holm_is_statsmodels(p_values):
    assert stats.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_skips_what_is_absent():
    assert stats.holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
    assert stats.holm([]) == []


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.02, 0.05])
def test_equivalence_is_statsmodels(margin):
    found = stats.equivalence(stats.paired_difference(A, B), margin)
    assert found == pytest.approx(ttost_paired(*map(np.array, COLUMNS), -margin, margin)[0], rel=1e-9)


def test_equivalence_of_identical_differences_is_the_one_sided_sign_flip():
    same = stats.paired_difference(A, A)
    assert stats.equivalence(same, 0.01) == 2**-5
    assert stats.equivalence(stats.paired_difference({s: v + 0.1 for s, v in A.items()}, A), 0.01) == 1.0
    assert stats.equivalence(stats.paired_difference({0: 0.5}, {0: 0.5}), 0.01) is None


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (5, 0.05), (5, 0.01), (10, 0.05), (30, 0.001)])
def test_minimum_detectable_effect_is_statsmodels(n, alpha):
    found = stats.minimum_detectable_effect(0.02, n, alpha)
    assert found is not None
    assert TTestPower().power(found / 0.02, n, alpha) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("df", [1, 2, 4, 29, 500])
@pytest.mark.parametrize("t", [1.96, 12.7, 141.0])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0, 40.0, 170.0])
def test_noncentral_tail_is_scipys(df, t, shift):
    assert stats._noncentral_tail(t, df, shift) == pytest.approx(reference.nct.sf(t, df, shift), abs=1e-11)


@pytest.mark.parametrize(("sd", "n"), [(0.0, 5), (None, 5), (0.02, 1)])
def test_without_spread_nothing_is_known_to_be_detectable(sd, n):
    assert stats.minimum_detectable_effect(sd, n) is None


def difference(mean, sd, n=5):
    """A difference with exactly this mean and standard deviation."""
    base = np.linspace(-1, 1, n) / np.std(np.linspace(-1, 1, n), ddof=1) if n > 1 else np.zeros(1)
    return stats.paired_difference(dict(enumerate(mean + sd * base)), dict.fromkeys(range(n), 0.0))


@pytest.mark.parametrize(
    ("mean", "sd", "n", "margin", "words"),
    [
        (0.05, 0.01, 5, None, "better"),
        (-0.05, 0.01, 5, None, "worse"),
        (0.0005, 0.002, 5, 0.01, "equivalent within 0.01"),
        (0.0005, 0.002, 5, None, "no difference shown"),
        (0.005, 0.02, 5, 0.01, "no difference shown"),
        (0.004, 0.001, 5, 0.01, "better, but by less than 0.01"),
        (0.05, 0.001, 2, 0.01, "not enough evidence"),
        (0.05, 0.0, 1, None, "not enough evidence"),
        (0.05, 0.0, 5, None, "no difference shown"),
    ],
)
def test_verdict_says_it_in_words(mean, sd, n, margin, words):
    (judged,) = stats.judge({0: difference(mean, sd, n)}, margin=margin).values()
    assert judged.verdict == words


def test_for_a_loss_lower_is_better():
    (judged,) = stats.judge({0: difference(-0.05, 0.01)}, higher_is_better=False).values()
    assert judged.verdict == "better"


def test_judge_corrects_over_the_family_and_plans_for_its_strictest_step():
    family = {"none": difference(0.02, 0.014), "2d": difference(0.0, 0.02), "single": difference(0.0, 0.0, n=1)}
    assert stats.judge({"none": family["none"]})["none"].verdict == "better"
    judged = stats.judge(family, margin=0.01)
    assert judged["none"].p_holm == pytest.approx(2 * family["none"].p)
    assert judged["none"].verdict == "no difference shown"
    assert judged["none"].detectable == pytest.approx(stats.minimum_detectable_effect(0.014, 5, 0.025))
    assert judged["single"].verdict == "not enough evidence"
    assert judged["single"].p_holm is None


def simulate(runs, n, mean, seed):
    noise = np.random.default_rng(seed).normal(mean, 0.02, size=(runs, n))
    return [stats.paired_difference(dict(enumerate(row)), dict.fromkeys(range(n), 0.0)) for row in noise]


def within_monte_carlo_error(count, runs, rate):
    return abs(count / runs - rate) < 3.5 * math.sqrt(rate * (1 - rate) / runs)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_false_positives_and_coverage_are_as_promised(n):
    found = simulate(4000, n, 0.01, seed=n)
    assert within_monte_carlo_error(sum(d.low <= 0.01 <= d.high for d in found), 4000, 0.95)
    null = simulate(4000, n, 0.0, seed=100 + n)
    assert within_monte_carlo_error(sum(d.p <= 0.05 for d in null), 4000, 0.05)


def test_detectable_effect_is_detected_at_the_promised_rate():
    effect = stats.minimum_detectable_effect(0.02, 5)
    found = simulate(4000, 5, effect, seed=1)
    assert within_monte_carlo_error(sum(d.p <= 0.05 for d in found), 4000, 0.8)


def test_a_family_without_differences_rarely_shows_one():
    families = [dict(enumerate(simulate(6, 5, 0.0, seed=1000 + k))) for k in range(1500)]
    shown = [any(j.verdict in (stats.BETTER, stats.WORSE) for j in stats.judge(f).values()) for f in families]
    # Six independent comparisons: some p is below 0.05 / 6 with this probability, just under 0.05.
    assert within_monte_carlo_error(sum(shown), 1500, 1 - (1 - 0.05 / 6) ** 6)


def test_arms_at_the_margin_are_rarely_called_equivalent():
    called = sum(stats.equivalence(d, 0.03) <= 0.05 for d in simulate(4000, 5, 0.03, seed=2))
    assert called / 4000 < 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 4000)


def test_nothing_is_divided_by_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats.judge({k: stats.paired_difference(A, A) for k in range(3)}, margin=0.01)
