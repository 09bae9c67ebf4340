"""Looks that are planned ahead: where they stand, what each may err with, and which of them decides."""

import numpy as np
import pytest

from vitexp import stats
from vitexp.stats import planning


def comparison(differences, margin=0.02):
    one = stats.Sample(values={seed: 0.5 + value for seed, value in enumerate(differences)})
    base = stats.Sample(values=dict.fromkeys(range(len(differences)), 0.5), alone=True)
    return stats.Asked(contrast=stats.Contrast(weights={one: 1.0, base: -1.0}), margin=margin)


@pytest.mark.parametrize(("most", "expected"), [(3, (3,)), (4, (3, 4)), (10, (3, 5, 8, 10)), (12, (3, 5, 8, 12))])
def test_looks_grow_by_half(most, expected):
    assert planning.looks(most) == expected


def test_fewer_seeds_than_a_verdict_takes_are_refused():
    with pytest.raises(ValueError, match="2 seeds an arm are below the 3"):
        planning.looks(2)


@pytest.mark.parametrize("most", [3, 4, 10, 40])
def test_what_the_looks_may_err_with_is_five_per_cent_in_all(most):
    spent = planning.spending(planning.looks(most))
    assert sum(spent) == pytest.approx(0.05)
    assert min(spent) > 0


def test_each_comparison_ends_at_the_look_that_decides_it():
    draw = np.random.default_rng(0)
    clear, open_ = 0.3 + 0.001 * draw.normal(size=10), 0.003 + 0.03 * draw.normal(size=10)
    found = planning.decide(
        {"a": comparison(clear), "b": comparison(open_, None)}, range(10), (3, 5, 8, 10), images=False
    )
    assert (found["a"].seeds, found["a"].decided, found["a"].judgement.verdict) == (3, True, "better")
    assert (found["b"].seeds, found["b"].decided) == (10, False)
    assert found["a"].judgement.n == 3


def test_a_look_has_its_own_level_and_only_the_seeds_before_it():
    values = [0.01, 0.09, 0.05, 0.06, 0.04]
    asked = comparison(values)
    found = planning.decide({"a": asked}, range(5), (3, 5), images=False)["a"]
    first = stats.judge({"a": comparison(values[:3])}, images=False, alpha=planning.spending((3, 5))[0])["a"]
    last = stats.judge({"a": asked}, images=False, alpha=planning.spending((3, 5))[1])["a"]
    assert first.verdict == "no difference shown"
    assert (found.judgement.low, found.judgement.high) == (last.low, last.high)


def test_what_a_later_seed_says_does_not_change_a_verdict_that_has_fallen():
    values = [0.3, 0.3001, 0.2999, -5.0, 5.0]
    found = planning.decide({"a": comparison(values)}, range(5), (3, 5), images=False)["a"]
    assert (found.seeds, found.judgement.verdict) == (3, "better")


def test_a_comparison_waits_for_the_seeds_of_its_next_look():
    found = planning.decide({"a": comparison([0.1, -0.1, 0.2, 0.0])}, range(8), (3, 5, 8), images=False)["a"]
    assert (found.seeds, found.decided) == (3, False)
    assert planning.decide({"a": comparison([0.1, -0.1])}, range(8), (3, 5, 8), images=False) == {}


def test_where_the_images_alone_leave_it_open_more_seeds_are_not_run():
    draw = np.random.default_rng(2)
    hard, other = draw.random(40) < 0.5, draw.random(40) < 0.5  # the same images for every seed, right or wrong alike

    def sample(bits):
        flipped = {seed: bits ^ (np.arange(40) == seed) for seed in range(8)}
        values = {seed: float(one.mean()) for seed, one in flipped.items()}
        return stats.Sample(values=values, answers={seed: (one,) for seed, one in flipped.items()}, images="x")

    contrast = stats.Contrast(weights={sample(hard): 1.0, sample(other): -1.0})
    asked = {"a": stats.Asked(contrast=contrast, margin=0.02)}
    such = planning.decide(asked, range(8), (3, 5, 8), images=True)["a"]
    these = planning.decide(asked, range(8), (3, 5, 8), images=False)["a"]
    assert (such.decided, such.why, such.seeds) == (True, "only more test images would decide it", 3)
    assert these.why == ""
