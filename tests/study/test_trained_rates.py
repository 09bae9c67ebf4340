"""How often a healthy run is said not to have trained, by simulation; `make bench-stats` does it at length."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location("trained_rates", Path(__file__).parents[2] / "bench" / "trained.py")
rates = importlib.util.module_from_spec(_spec)
sys.modules["trained_rates"] = rates  # dataclasses look their module up
_spec.loader.exec_module(rates)


@pytest.mark.parametrize("name", rates.KINDS)
def test_no_healthy_run_is_said_not_to_have_trained(name):
    assert rates.false_alarms(rates.KINDS[name], 150, np.random.default_rng(1)).total() == 0


@pytest.mark.parametrize("how", rates.COLLAPSES)
@pytest.mark.parametrize(
    "name", ["ten classes", "two classes", "mixup", "label smoothing 0.9", "short: 64 images a tenth"]
)
def test_collapses_are_seen_where_classes_are_alike(name, how):
    assert rates.missed(rates.KINDS[name], how, 40, np.random.default_rng(2)) <= 1


def test_the_simulated_losses_are_those_of_torch():
    """A mean over many images beside cross entropy with smoothed and mixed labels, drawn and computed elsewhere."""
    import torch
    from torch.nn import functional

    kind = rates.Kind(shares=rates.tail(5, 20), smoothing=0.2, mixup=0.5, seen=200_000)
    draw = torch.Generator().manual_seed(0)
    shares, n, count = torch.tensor(kind.shares), kind.seen, 5
    one, other = (torch.multinomial(shares, n, replacement=True, generator=draw) for _ in range(2))
    part = torch.from_numpy(np.random.default_rng(3).beta(0.5, 0.5, n)).float()
    mixed = part[:, None] * functional.one_hot(one, count) + (1 - part)[:, None] * functional.one_hot(other, count)
    smooth = mixed * 0.8 + 0.2 / count
    answer = 0.6 * smooth + 0.4 * (shares * 0.8 + 0.2 / count)
    expected = float(functional.cross_entropy(answer.log(), smooth))
    assert rates.loss(kind, 0.6, 0.0, np.random.default_rng(4)) == pytest.approx(expected, rel=5e-3)
