"""The formulas against scipy, statsmodels, or a calculation written down in another way."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from vitexp import stats
from vitexp.stats.crossed import Sample, Spread, image_variance, pools, shrunk, variance_of

SEEDS = range(5)


def sample(values, **more):
    return Sample(values=dict(enumerate(map(float, values))), **more)


def against(one, base, margin=None, **more):
    return stats.Asked(contrast=stats.Contrast(weights={one: 1.0, base: -1.0}), margin=margin, **more)


def whole(one):
    return stats.Contrast(weights={one: 1.0})


def draws(seed, arms=2, n=5, spread=0.01, shared=0.0):
    draw = np.random.default_rng(seed)
    return 0.9 + spread * draw.normal(size=(arms, n)) + shared * draw.normal(size=n)


@pytest.mark.parametrize("values", [[0.9, 0.92, 0.91], [3.0, -1.0, 2.5, 7.0, 0.0], [1e-9, 2e-9]])
def test_an_interval_is_that_of_scipy(values):
    found = stats.interval(values)
    low, high = reference.t.interval(0.95, len(values) - 1, np.mean(values), reference.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))
    assert found.sd == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(("values", "sd"), [([0.5], None), ([0.3, 0.3, 0.3], 0.0), ([0.1 + 0.2, 0.3], 0.0)])
def test_no_spread_makes_no_interval(values, sd):
    found = stats.interval(values)
    assert (found.low, found.high, found.sd) == (None, None, sd)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(ValueError, match="statistics need at least one value, and all of them finite"):
        stats.interval(values)


@pytest.mark.parametrize(("count", "n"), [(0, 5), (2, 5), (5, 5), (1, 40)])
def test_the_interval_of_a_share_is_that_of_scipy(count, n):
    found = reference.binomtest(count, n).proportion_ci(0.95, "exact")
    assert stats.proportion_interval(count, n) == pytest.approx((found.low, found.high))


def test_two_arms_with_a_common_seed_effect_make_the_paired_t_test():
    one, base = draws(1, shared=0.1)
    judged = stats.judge({"one": against(sample(one), sample(base))}, images=False)["one"]
    test = reference.ttest_rel(one, base)
    low, high = test.confidence_interval(0.95)
    assert (judged.p, judged.p_adjusted) == (pytest.approx(test.pvalue, rel=1e-6), judged.p)
    assert (judged.low, judged.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    assert judged.gain > 10


def test_a_single_sum_of_one_sample_is_the_one_sample_t_test():
    values = draws(2)[0] - 0.9
    asked = stats.Asked(contrast=stats.Contrast(weights={sample(values): 1.0}))
    judged = stats.judge({"one": asked}, images=False)["one"]
    assert judged.p == pytest.approx(reference.ttest_1samp(values, 0).pvalue, rel=1e-6)


def test_many_arms_and_seeds_come_to_dunnett_s_test():
    """With so many seeds no variance is uncertain and none is shrunk: what is left is the correlation of the family."""
    values = draws(3, arms=6, n=400)
    values[1] += 0.0016
    arms = [sample(row, pool="acc") for row in values]
    judged = stats.judge({k: against(arms[k], arms[0]) for k in range(1, 6)}, images=False)
    expected = reference.dunnett(*values[1:], control=values[0], rng=np.random.default_rng(0))
    interval = expected.confidence_interval(0.95)
    for k, one in judged.items():
        assert one.p_adjusted == pytest.approx(expected.pvalue[k - 1], abs=0.02)
        assert one.high - one.low == pytest.approx(interval.high[k - 1] - interval.low[k - 1], rel=0.04)
    assert min(one.p_adjusted for one in judged.values()) < 0.2


def test_metrics_are_independent_of_each_other():
    values = draws(4, arms=4, n=50)
    arms = [sample(row, pool=metric) for metric, row in zip("aabb", values, strict=True)]
    judged = stats.judge({"a": against(arms[1], arms[0]), "b": against(arms[3], arms[2])}, images=False)
    for one in judged.values():
        assert one.p_adjusted == pytest.approx(1 - (1 - one.p) ** 2, rel=0.05)


def test_the_variances_of_crossed_factors_are_those_of_the_analysis_of_variance():
    table = np.random.default_rng(5).normal(size=(4, 30)) + np.random.default_rng(6).normal(size=30)
    n, m = table.shape
    grand = table.mean()
    squares = [[(x - row.mean() - column + grand) ** 2 for x, column in zip(row, table.mean(0), strict=True)]
               for row in table]  # fmt: skip
    left = math.fsum(itertools.chain(*squares)) / ((n - 1) * (m - 1))
    of_images = n * math.fsum((column.mean() - grand) ** 2 for column in table.T) / (m - 1)
    assert image_variance(table) == pytest.approx(((of_images - left) / n / m, left / n / m))


def test_images_that_all_runs_answer_alike_add_the_variance_of_their_mean():
    hard = np.random.default_rng(7).random(200) < 0.8
    alike = Sample(values=dict.fromkeys(SEEDS, float(hard.mean())), answers=dict.fromkeys(SEEDS, (hard,)), images="x")
    found = stats.level(alike, images=True)
    half = reference.t.ppf(0.975, 199) * hard.std(ddof=1) / math.sqrt(200)
    assert (found.high - found.mean, found.images) == (pytest.approx(half), 200)
    assert stats.level(alike, images=False).low is None


def test_variances_are_shrunk_towards_each_other_and_an_odd_one_keeps_its_own():
    values = draws(8, arms=8)
    arms = [sample(row) for row in values]
    own = {one: Spread(one.spread, 4.0) for one in arms}
    mean = np.mean([one.variance for one in own.values()])
    for one, found in shrunk(own).items():
        pulled = (one.spread + 4 * mean) / 5
        assert found.variance == pytest.approx(max(one.spread, pulled))
        assert 4.0 <= found.df <= 20.0
    odd = sample(0.9 + 30 * (values[0] - 0.9))
    found = shrunk({**own, odd: Spread(odd.spread, 4.0)})[odd]
    assert (found.variance, found.df) == (odd.spread, pytest.approx(4.0, abs=0.1))
    mild = sample(0.9 + 1.6 * (values[0] - 0.9))
    pool = {**own, mild: Spread(mild.spread, 4.0)}
    assert shrunk(pool, {mild})[mild].df < shrunk(pool)[mild].df  # more care where several comparisons share it


def test_three_seeds_are_hardly_shrunk_and_two_arms_no_more_than_by_half():
    three = [Spread(v, 2.0) for v in (1.0, 4.0, 0.1, 0.5)]
    arms = {sample([0, 1, 2]): one for one in three}
    mean = np.mean([one.variance for one in three])
    assert [one.variance for one in shrunk(arms).values()] == pytest.approx(
        [max(v.variance, (v.variance + mean) / 2) for v in three]
    )
    two = {sample(range(5)): Spread(v, 4.0) for v in (1.0, 3.0)}
    assert [one.variance for one in shrunk(two).values()] == pytest.approx([1.5, 3.0])


def test_a_sample_alone_is_in_no_pool():
    arms = [sample(row, pool="p") for row in draws(9, arms=4)]
    still = sample([0.1, 0.1, 0.1, 0.1, 0.1001], pool="p", alone=True)
    without, beside = (pools(map(whole, given))["p"] for given in (arms, [*arms, still]))
    assert [beside.unpaired[one] for one in arms] == [without.unpaired[one] for one in arms]
    assert beside.unpaired[still].variance == still.spread


def test_a_seed_effect_is_taken_out_where_there_is_one_alone():
    together, apart = (pools(whole(sample(row)) for row in draws(12, arms=6, shared=s))[None] for s in (0.1, 0.0))
    assert together.gain > 20
    assert len(together.paired) == 6
    assert apart.paired == {}
    true = [one.variance for one in together.paired.values()]
    assert 0.2 < np.mean(true) / 0.01**2 < 3


def test_an_arm_that_lacks_a_run_does_not_undo_the_pairs_of_the_others():
    base, *arms = (sample(row) for row in draws(12, arms=5, shared=0.1))
    lacking = Sample(values={seed: value for seed, value in sample(draws(3)[0]).values.items() if seed != 2})
    asked = {place: against(one, base) for place, one in enumerate(arms)}
    whole, beside = (stats.judge(given, images=False) for given in (asked, {"lacking": against(lacking, base)} | asked))
    found, expected = ([given[place].variance.of_seeds for place in asked] for given in (beside, whole))
    assert found == pytest.approx(expected, rel=1e-9)
    assert beside["lacking"].variance.of_seeds > 10 * max(found)
    assert all(beside[place].high - beside[place].low > whole[place].high - whole[place].low for place in asked)


def test_seeds_that_one_side_lacks_are_left_out():
    one, base = sample(draws(11)[0]), Sample(values={2: 0.8, 3: 0.81, 4: 0.83, 9: 0.1})
    judged = stats.judge({"one": against(one, base)}, images=False)["one"]
    assert (judged.seeds, judged.n) == ((2, 3, 4), 3)
    assert judged.mean == pytest.approx(np.mean([one.values[s] - base.values[s] for s in (2, 3, 4)]))
    with pytest.raises(ValueError, match="no seed in common"):
        stats.judge({"one": against(one, Sample(values={7: 0.5}))}, images=False)


@pytest.mark.parametrize(
    ("one", "base", "more", "verdict"),
    [
        ([0.9, 0.91], [0.8, 0.82], {}, "not enough evidence"),
        ([0.9] * 5, [0.8] * 5, {}, "no spread"),
        ([0.9, 0.91, 0.92], [0.8, 0.82, 0.81], {"unstable": True}, "unstable"),
    ],
)
def test_without_a_verdict_there_is_no_interval(one, base, more, verdict):
    judged = stats.judge({"one": against(sample(one), sample(base), margin=0.5, **more)}, images=False)["one"]
    assert judged.verdict == verdict
    assert (judged.low, judged.high, judged.p, judged.p_adjusted, judged.p_equivalence) == (None,) * 5
    assert judged.mean == pytest.approx(np.mean(one) - np.mean(base))


@pytest.mark.parametrize("seed", range(12))
def test_a_verdict_is_its_interval(seed):
    draw = np.random.default_rng(seed)
    values = draws(seed, arms=7, spread=0.004) + draw.normal(0, 0.01, (7, 1))
    arms = [sample(row, pool="p") for row in values]
    higher = bool(seed % 2)
    asked = {k: against(arms[k], arms[0], margin=0.012, higher_is_better=higher) for k in range(1, 7)}
    for one in stats.judge(asked, images=False).values():
        assert one.low < one.mean < one.high
        zero_out, inside = one.low > 0 or one.high < 0, one.low > -0.012 and one.high < 0.012
        assert zero_out == ("better" in one.verdict or "worse" in one.verdict)
        assert inside == ("equivalent within 0.012" in one.verdict)
        assert (one.verdict == "no difference shown") == (not zero_out and not inside)
        if zero_out:
            assert one.verdict.startswith("better" if (one.mean > 0) == higher else "worse")
        assert abs((one.p_adjusted <= 0.05) - zero_out) * abs(one.p_adjusted - 0.05) < 0.002  # up to the draws
        assert abs((one.p_equivalence <= 0.05) - inside) * abs(one.p_equivalence - 0.05) < 0.002


def test_turned_and_scaled_values_are_judged_alike():
    values = draws(13, arms=4)
    first, second = ([sample(factor * row) for row in values] for factor in (1.0, -100.0))
    pairs = [{k: against(arms[k], arms[0]) for k in (1, 2, 3)} for arms in (first, second)]
    one, other = (stats.judge(family, images=False) for family in pairs)
    for k in (1, 2, 3):
        assert (-100 * one[k].low, -100 * one[k].high) == pytest.approx((other[k].high, other[k].low))
        assert one[k].p == pytest.approx(other[k].p)


def test_more_comparisons_make_wider_intervals_and_beyond_a_number_they_count_as_independent(monkeypatch):
    values = draws(14, arms=9, n=300)
    arms = [sample(row) for row in values]

    def width(count):
        judged = stats.judge({k: against(arms[k], arms[0]) for k in range(1, count)}, images=False)[1]
        return judged.high - judged.low

    widths = [width(count) for count in (2, 4, 9)]
    assert widths == sorted(widths)
    monkeypatch.setattr("vitexp.stats.family._MOST", 2)
    assert widths[2] < width(9) < 1.1 * widths[2]


def test_a_mean_over_data_sets_has_the_images_of_each():
    draw = np.random.default_rng(15)
    sizes, seeds = (40, 90), range(4)
    bits = {s: tuple(draw.random(m) < 0.7 for m in sizes) for s in seeds}
    both = Sample(values={s: float(np.mean([b.mean() for b in bits[s]])) for s in seeds}, answers=bits, images="two")
    contrast = stats.Contrast(weights={both: 1.0})
    found, _ = variance_of(contrast, pools([contrast]), True)
    each = [image_variance(np.array([bits[s][place] for s in seeds], dtype=float)) for place in (0, 1)]
    assert (found.images, found.rest) == pytest.approx(tuple(np.sum(each, axis=0) / 4))
    assert found.count == sum(sizes)


def test_the_range_of_the_detectable_effect_is_that_of_the_variance():
    """Of one paired comparison: the chi-square interval of the variance of its differences."""
    one, base = draws(1, shared=0.1)
    judged = stats.judge({"one": against(sample(one), sample(base))}, images=False)["one"]
    sd = float(np.std(one - base, ddof=1))
    factor = (reference.t.ppf(0.975, 4) + reference.norm.ppf(0.8)) / math.sqrt(5)
    ends = [sd * math.sqrt(4 / reference.chi2.ppf(tail, 4)) * factor for tail in (0.975, 0.025)]
    assert judged.detectable == pytest.approx(sd * factor)
    assert judged.detectable_range == pytest.approx(ends)
