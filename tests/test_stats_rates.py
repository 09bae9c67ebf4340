"""How often our statistics err, by simulation of whole studies; `make bench-stats` does it at length."""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitexp import stats
from vitexp.stats import planning
from vitexp.study.claims.verdicts import CONTRADICT, SUPPORT, verdict_of

_spec = importlib.util.spec_from_file_location("rates", Path(__file__).parents[1] / "bench" / "rates.py")
rates = importlib.util.module_from_spec(_spec)
sys.modules["rates"] = rates  # dataclasses look their module up
_spec.loader.exec_module(rates)

STUDIES = 100


def at_most(count, runs, rate):
    """Not more often than promised, within three and a half standard errors of the simulation."""
    return count / runs <= rate + 3.5 * math.sqrt(rate * (1 - rate) / runs)


def measured(world, images, studies=STUDIES):
    return [rates.measure(world, images, seed)["new"] for seed in range(studies)]


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("name", ["nothing differs", "a baseline of triple spread", "one run in ten does not train"])
def test_a_table_rarely_says_what_is_not_so_and_its_intervals_hold_together(name, images):
    found = measured(rates.SCENARIOS[name], images)
    assert at_most(sum(one["error"][0] for one in found), STUDIES, 0.05)
    told = [one["joint"][0] for one in found if one["joint"][1]]
    assert at_most(len(told) - sum(told), len(told), 0.055)
    hits, of = (sum(one["levels"][place] for one in found) for place in (0, 1))
    assert 0.92 < hits / of < 0.98


def test_the_old_intervals_do_not_hold_for_images_like_these():
    """The simulation is one in which it matters: otherwise the tests above would show nothing."""
    old = [rates.measure(World, True, seed)["old"] for seed in range(40)]
    assert sum(one["levels"][0] for one in old) / sum(one["levels"][1] for one in old) < 0.85
    assert sum(one["joint"][0] for one in old) < 20


World = rates.SCENARIOS["nothing differs"]


def test_four_points_are_shown_by_five_seeds_and_more_often_than_before():
    found = [rates.measure(rates.World(effects=rates.PLANTED), False, seed) for seed in range(STUDIES)]
    new, old = (sum(one[name]["power"][0] for one in found) for name in ("new", "old"))
    assert new >= 80
    assert new > old + 15


def judged(effect, seed, n=5, sd=0.01):
    """One comparison with a true difference, by seeds alone, among eight arms."""
    values = 0.9 + sd / math.sqrt(2) * np.random.default_rng(seed).normal(size=(8, n))
    arms = [stats.Sample(values=dict(enumerate(map(float, row)))) for row in values + effect * np.eye(8, 1)]
    asked = {
        k: stats.Asked(contrast=stats.Contrast(weights={arms[0]: 1.0, arms[k]: -1.0}), margin=0.03) for k in range(1, 8)
    }
    return stats.judge(asked, images=False)


@pytest.mark.parametrize(
    ("expected", "effect", "never"),
    [
        ("alike", 0.0, CONTRADICT),
        ("alike", 0.03, SUPPORT),
        ("lower", 0.0, SUPPORT),
        ("higher", 0.0, SUPPORT),
        ("lower", -0.03, CONTRADICT),
    ],
)
def test_a_claim_is_rarely_judged_wrongly(expected, effect, never):
    wrong = sum(
        any(verdict_of(expected, one, 0.03) == never for one in judged(effect, seed).values()) for seed in range(150)
    )
    assert at_most(wrong, 150, 0.05)


def test_the_detectable_effect_is_detected_about_as_often_as_it_says():
    effects = [judged(0.0, seed)[1].detectable for seed in range(60)]
    middle = float(np.mean(effects))
    shown = sum(judged(-middle, 1000 + seed)[1].is_different for seed in range(150))
    assert 0.65 < shown / 150 < 0.95


def test_the_seeds_that_are_planned_show_the_effect():
    pilot = judged(0.0, 3, n=4)[1]
    needed = planning.seeds_for_effect(pilot, 0.02, alpha=0.05 / 7)
    assert needed.low <= needed.seeds <= needed.high
    many = [planning.seeds_for_effect(judged(0.0, seed, n=4)[1], 0.02, alpha=0.05 / 7).seeds for seed in range(60)]
    n = round(float(np.median(many)))
    shown = sum(judged(-0.02, 2000 + seed, n=n)[1].is_different for seed in range(120))
    assert 0.65 < shown / 120 < 0.97


def test_no_number_of_seeds_makes_up_for_images():
    world = replace(rates.World(), images=100)
    drawn = world.draw(np.random.default_rng(0))
    right = drawn.metrics[0]
    arms = [
        stats.Sample(
            values={s: float(one[s].mean()) for s in range(5)}, answers={s: (one[s],) for s in range(5)}, images=1
        )
        for one in right[:3]
    ]
    asked = {1: stats.Asked(contrast=stats.Contrast(weights={arms[1]: 1.0, arms[0]: -1.0}))}
    few = stats.judge(asked, images=True)[1]
    assert planning.seeds_for_effect(few, 0.0001, alpha=0.05).seeds is None
    assert planning.seeds_for_margin(few, 0.0001, alpha=0.05).seeds is None


def sequential(seed, most=10):
    """A study that stops, beside the same with ten seeds: runs, decisions, and whether one of them is wrong."""
    drawn = replace(rates.SCENARIOS["differences as in README"], n=most).draw(np.random.default_rng(seed))
    right, true = drawn.metrics[0], drawn.these[0]
    arms = [
        stats.Sample(values={s: float(one[s].mean()) for s in range(most)}, answers={s: (one[s],) for s in range(most)})
        for one in right
    ]
    asked = {
        k: stats.Asked(contrast=stats.Contrast(weights={arms[k]: 1.0, arms[0]: -1.0}), margin=rates.MARGIN)
        for k in range(1, 8)
    }
    told = planning.decide(asked, range(most), planning.looks(most), images=False)
    counts = [one.seeds for one in told.values()]
    wrong = any(
        (one.judgement.is_different and np.sign(one.judgement.mean) != np.sign(true[k] - true[0]))
        or (one.judgement.is_within(rates.MARGIN) and abs(true[k] - true[0]) >= rates.MARGIN)
        for k, one in told.items()
    )
    fixed = stats.judge(asked, images=False)
    decided = [sum(one.verdict != stats.NO_DIFFERENCE for one in held) for held in (
        [one.judgement for one in told.values()], fixed.values())]  # fmt: skip
    return sum(counts) + max(counts), *decided, wrong


def test_a_study_that_stops_decides_what_ten_seeds_decide_with_fewer_runs_and_no_more_errors():
    found = np.array([sequential(seed) for seed in range(STUDIES)], dtype=float)
    runs, ours, fixed, wrong = found.mean(0)
    assert runs <= 0.8 * 80
    assert ours >= fixed - 0.15
    assert at_most(wrong * STUDIES, STUDIES, 0.05)
