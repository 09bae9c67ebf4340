import math

import pytest
import torch
from torch import nn

from vitexp.train.optim import OptimConfig, build_optimizer, check_optim, learning_rate, lr_factor, settled


def test_cosine_by_hand():
    config = OptimConfig(lr=0.8, schedule="cosine", warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in (0, 5, 10, 60, 110)]
    assert rates == pytest.approx([0.0, 0.4, 0.8, 0.4, 0.0], abs=1e-12)


def test_linear_ends_at_the_floor_of_the_released_code():
    config = OptimConfig(lr=8e-4, schedule="linear", warmup_steps=0)
    assert learning_rate(config, 50, 100) == pytest.approx(1e-5 + (8e-4 - 1e-5) / 2)
    assert learning_rate(config, 100, 100) == pytest.approx(1e-5)


def test_the_staircase_of_bit():
    config = OptimConfig(lr=0.03, schedule="staircase", warmup_steps=5)
    rates = [learning_rate(config, epoch, 90) for epoch in (1, 5, 29, 30, 59, 60, 79, 80, 89)]
    by_hand = [0.006, 0.03, 0.03, 0.003, 0.003, 3e-4, 3e-4, 3e-5, 3e-5]
    assert rates == pytest.approx(by_hand)


def test_the_schedule_drives_a_real_optimizer():
    config = OptimConfig(lr=0.1, warmup_steps=2)
    weight = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(config, [("weight", weight)])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(config, 10))
    seen = []
    for _ in range(10):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    by_hand = [0.0, 0.05] + [0.05 * (1 + math.cos(math.pi * (step - 2) / 8)) for step in range(2, 10)]
    assert seen == pytest.approx(by_hand)


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="whole run has 30 steps"):
        lr_factor(OptimConfig(warmup_steps=30), 30)


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [(30, 210, 30), (0.143, 210, 30), (0.143, 21, 3), (0.143, 1, 0), (0, 9, 0), (2.0, 9, 2)],
)
def test_a_warmup_may_be_a_share_of_the_run(warmup, total, steps):
    found = settled(OptimConfig(warmup_steps=warmup), lambda: total).warmup_steps
    assert (found, type(found)) == (steps, int)


def test_a_warmup_of_part_of_a_step_is_refused():
    with pytest.raises(ValueError, match=r"model\.warmup_steps is 2\.5; give whole steps, or a share"):
        settled(OptimConfig(warmup_steps=2.5), lambda: 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1.0), ("lr", float("nan")), ("weight_decay", -0.1), ("clip_norm", -1.0), ("warmup_steps", -1)],
)
def test_impossible_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"model\.{name} is"):
        check_optim(OptimConfig(**{name: value}))


def decayed_names(decay):
    network = nn.ModuleDict({"dense": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    network.register_parameter("cls", nn.Parameter(torch.zeros(1, 1, 4)))
    names = {id(p): name for name, p in network.named_parameters()}
    optimizer = build_optimizer(OptimConfig(weight_decay=0.5, decay=decay), network.named_parameters())
    return {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}


def test_all_weights_decay_as_the_papers_did_or_kernels_only():
    assert decayed_names("all") == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "cls"}
    assert decayed_names("kernels") == {"dense.weight"}


def test_weight_decay_is_decoupled_and_scaled_by_the_rate():
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = build_optimizer(OptimConfig(lr=0.1, weight_decay=0.3), [("dense.weight", weight)])
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.3))
