import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, interpolate
from scipy import stats as reference

from vitexp.study.fits import equal_accuracy, gap, running_best

COSTS = np.geomspace(1e9, 1e12, 5)


def line(factor=1.0, slope=0.05, start=0.5, costs=COSTS):
    """Accuracy straight in the logarithm of cost, everything `factor` times cheaper."""
    return [(cost / factor, start + slope * math.log(cost / costs[0])) for cost in costs]


def seeded(points, seeds, noise=0.0, generator=None):
    shared = np.zeros(seeds) if generator is None else generator.normal(0, noise, seeds)
    own = np.zeros((len(points), seeds)) if generator is None else generator.normal(0, noise, (len(points), seeds))
    return [
        (cost, {seed: value + shared[seed] + own[index, seed] for seed in range(seeds)})
        for index, (cost, value) in enumerate(points)
    ]


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.0, 3.7, 10.0])
def test_a_line_that_is_shifted_by_a_factor_gives_the_factor(factor):
    found = gap(line(factor), line())
    assert math.exp(found.log_factor) == pytest.approx(factor, rel=1e-12)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5 + 0.05 * math.log(1000)))


def test_the_distance_is_averaged_over_the_accuracies_that_both_reach():
    one, other = [(1.0, 0.2), (math.e, 0.6)], [(math.e, 0.4), (math.e**3, 0.8)]
    # log cost at accuracy a: (a - 0.2) / 0.4 against 1 + 2 (a - 0.4) / 0.4; from 0.4 to 0.6 it goes from 0.5 to 1.
    found = gap(one, other)
    assert (found.low, found.high) == (0.4, 0.6)
    assert found.log_factor == pytest.approx(0.75, rel=1e-12)


def test_crooked_lines_agree_with_an_integral_by_scipy():
    generator = np.random.default_rng(5)
    met = 0
    for _ in range(40):
        lines = [list(zip(np.exp(generator.uniform(0, 8, 6)), generator.uniform(0.3, 0.9, 6), strict=True))
                 for _ in range(2)]  # fmt: skip
        found, expected = gap(*lines), by_scipy(*lines)
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.log_factor == pytest.approx(expected, abs=1e-3)
            met += 1
    assert met > 15


def by_scipy(*lines):
    """The mean distance from a fine grid of accuracies, or None."""
    inverse, ends = [], []
    for points in map(sorted, lines):
        best = np.maximum.accumulate([accuracy for _, accuracy in points])
        kept = np.concatenate([[True], np.diff(best) > 0])
        inverse.append((best[kept], np.log([cost for cost, _ in points])[kept]))
        ends.append((best[0], best[-1]))
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    if low >= high:
        return None
    grid = np.linspace(low, high, 20_001)[1:-1]
    cheap, dear = (interpolate.interp1d(*known)(grid) for known in inverse)
    return integrate.trapezoid(dear - cheap, grid) / (grid[-1] - grid[0])


def test_a_network_that_a_cheaper_one_matches_is_no_part_of_the_line():
    points = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.7), (2.0, 0.65), (5.0, 0.8)]
    assert running_best(points) == [(1.0, 0.5), (2.0, 0.7), (5.0, 0.8)]
    assert gap([*line(2.0), (5e11, 0.1)], line()) == gap(line(2.0), line())


def test_without_a_common_range_of_accuracy_there_is_no_factor():
    low, high = [(1.0, 0.1), (2.0, 0.2)], [(1.0, 0.2), (2.0, 0.3)]
    assert gap(low, high) is None
    assert gap([(1.0, 0.15), (3.0, 0.1)], low) is None
    found = equal_accuracy(seeded(low, 3), seeded(high, 3))
    assert (found.factor, found.interval, found.accuracies, found.apart) == (None, None, None, (0, 1, 2))


def test_the_interval_is_that_of_students_t_on_logarithms():
    generator = np.random.default_rng(2)
    found = equal_accuracy(seeded(line(2.5), 5, 0.004, generator), seeded(line(), 5, 0.004, generator))
    logs = np.array(list(found.log_factors.values()))
    low, high = reference.t.interval(0.95, 4, logs.mean(), reference.sem(logs))
    assert found.interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)
    assert found.factor == pytest.approx(reference.gmean(np.exp(logs)), rel=1e-12)
    each = [
        gap([(c, v[seed]) for c, v in seeded(line(2.5), 5, 0.004, np.random.default_rng(9))], line()) for seed in (0, 3)
    ]
    both = equal_accuracy(seeded(line(2.5), 5, 0.004, np.random.default_rng(9)), seeded(line(), 5))
    assert [both.gaps[0], both.gaps[3]] == each


def test_too_few_seeds_no_spread_or_a_seed_apart_leave_the_interval_out():
    generator = np.random.default_rng(4)
    assert equal_accuracy(seeded(line(2), 2, 0.01, generator), seeded(line(), 2, 0.01, generator)).interval is None
    assert equal_accuracy(seeded(line(2), 4), seeded(line(), 4)).interval is None
    one = seeded(line(2), 4, 0.01, generator)
    far = [(cost, values | {3: values[3] - 0.6}) for cost, values in one]
    found = equal_accuracy(far, seeded(line(), 4))
    assert (found.apart, found.interval) == ((3,), None)
    assert found.factor == pytest.approx(equal_accuracy([(c, {s: v[s] for s in (0, 1, 2)}) for c, v in one],
                                                         seeded(line(), 4)).factor)  # fmt: skip


def test_only_seeds_that_every_network_has_count():
    one = seeded(line(2), 4)
    one[2][1].pop(1)
    assert list(equal_accuracy(one, seeded(line(), 4)).gaps) == [0, 2, 3]


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_covers_the_true_factor_about_as_often_as_it_says(seeds):
    generator = np.random.default_rng(seeds)
    one, other = line(2.0, 0.05), line(1.0, 0.05)
    intervals = [
        equal_accuracy(seeded(one, seeds, 0.01, generator), seeded(other, seeds, 0.01, generator)).interval
        for _ in range(600)
    ]
    held = np.mean([low < 2.0 < high for low, high in intervals])
    assert 0.925 < held < 0.975  # 95 % with a standard error of 0.9 %


def test_the_papers_own_table_says_two_to_four_times():
    with (Path(__file__).parents[1] / "paper_table6.csv").open() as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    sets = ("ImageNet", "CIFAR-10", "CIFAR-100", "Pets", "Flowers")

    def family(start):
        found = [row for row in rows if row["model, epochs"].startswith(start)]
        return [(float(row["exaFLOPs"]), math.fsum(float(row[name]) for name in sets) / len(sets)) for row in found]

    found = gap(family("ViT"), family("ResNet"))
    assert 2 < math.exp(found.log_factor) < 4
    assert found.log_factor == pytest.approx(by_scipy(family("ViT"), family("ResNet")), abs=1e-3)
