"""Loops that try many changes, simulated by bench/campaigns.py: what keeping whatever looks better costs, and ours."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as reference

_PLACE = Path(__file__).parents[2] / "bench" / "campaigns.py"
_spec = importlib.util.spec_from_file_location("bench_campaigns", _PLACE)
campaigns = sys.modules["bench_campaigns"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(campaigns)


def of(name, planted, count):
    return [campaigns.campaign(name, planted, seed) for seed in range(count)]


def test_a_greedy_loop_keeps_and_claims_what_order_statistics_say():
    """Records among 201 equal draws, and how far the largest lies above the first."""
    found = of("greedy, one run each", False, 300)
    records = sum(1 / k for k in range(2, 202))
    largest = integrate.quad(lambda x: 201 * x * reference.norm.pdf(x) * reference.norm.cdf(x) ** 200, -10, 10)[0]
    assert np.mean([kept.nothing for kept in found]) == pytest.approx(records, abs=0.4)
    assert np.mean([kept.claimed for kept in found]) == pytest.approx(largest * campaigns.ARM_SD, abs=0.002)
    assert (records, largest * campaigns.ARM_SD) == pytest.approx((4.88, 0.038), abs=0.01)


@pytest.mark.parametrize("looks", [(15,), (5, 10, 15)])
def test_a_planned_campaign_finds_three_points(looks):
    ledger, draw, found = campaigns.Ledger(200), np.random.default_rng(1), 0
    for place in range(200):
        common, own = draw.normal(0.9, campaigns.COMMON_SD, 15), draw.normal(0, campaigns.OWN_SD, (2, 15))
        for seen in looks:
            turn = ledger.turn("base", str(place), str(seen))
            ledger.note("base", str(place), turn, campaigns.Look(str(seen), seen, ""))
            base, runs = (common + own)[:, :seen]
            if (judged := campaigns._judge(base, runs + campaigns.GAIN, turn.level)).is_different:
                found += judged.mean > 0
                break
    assert found / 200 > 0.8 + 2 * (0.16 / 200) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(campaigns.PROMISED))
def test_of_changes_that_do_nothing_any_is_kept_in_at_most_one_campaign_in_twenty(name):
    count = 100
    kept = sum(one.nothing > 0 for one in of(name, False, count))
    assert reference.binom.sf(kept - 1, count, 0.05) > 0.01


@pytest.mark.slow
def test_without_a_ledger_most_campaigns_keep_something():
    found = of(f"compare without a ledger, {campaigns.SEEDS} seeds", False, 30)
    assert sum(kept.nothing > 0 for kept in found) > 20
