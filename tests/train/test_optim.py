import math

import pytest
import torch
from torch import nn

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
import timm.optim

from vitexp.axes import words_of
from vitexp.train.module import Classifier
from vitexp.train.optim import (
    OptimConfig,
    Optimizer,
    build_optimizer,
    check_optim,
    layer_rates,
    learning_rate,
    lr_factor,
    settled,
)


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


def test_cosine_with_a_least_rate_is_timms():
    from timm.scheduler.cosine_lr import CosineLRScheduler

    config = OptimConfig(lr=0.8, min_lr=0.05, warmup_steps=10)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    timms = CosineLRScheduler(
        optimizer, t_initial=90, lr_min=0.05, warmup_t=10, warmup_prefix=True, warmup_lr_init=0.0, t_in_epochs=False
    )
    for step in range(100):
        assert learning_rate(config, step, 100) == pytest.approx(timms._get_lr(step)[0], abs=1e-12)
    assert learning_rate(config, 100, 100) == pytest.approx(0.05)


@pytest.mark.parametrize(("epochs", "steps"), [(5, 105), (0.5, 10), (0.001, 1)])
def test_a_warm_up_in_epochs_becomes_one_in_steps(epochs, steps):
    found = settled(OptimConfig(warmup_epochs=epochs), lambda: 1000, lambda: 21)
    assert (found.warmup_steps, found.warmup_epochs) == (steps, 0.0)
    assert settled(OptimConfig(warmup_steps=7), lambda: 1000, lambda: 21).warmup_steps == 7


NAMES = {
    "adamw": "AdamW",
    "sgd": "SGD",
    "muon": "Muon",
    "lion": "Lion",
    "lamb": "Lamb",
    "adafactor": "AdafactorBigVision",
}
OWN = {"adamw": (0.9, 0.999), "muon": (0.9, 0.95), "lion": (0.9, 0.99), "lamb": (0.9, 0.999)}


@pytest.mark.parametrize("word", words_of(Optimizer))
def test_each_word_is_a_librarys_optimizer_with_the_options_given(word):
    """And one step of it is that of the library's own, made by hand."""

    def stepped(make):
        network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 20), nn.Linear(20, 20))
        torch.manual_seed(0)
        for p in network.parameters():
            nn.init.normal_(p)
        optimizer = make(network)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
        return optimizer, torch.cat([p.flatten() for p in network.parameters()])

    given = {"betas": (0.8, 0.7)} if word in OWN else {}
    given |= {"eps": 1e-3} if word in ("adamw", "muon", "lamb") else {}
    optimizer, weights = stepped(
        lambda n: build_optimizer(OptimConfig(optimizer=word, lr=0.01, weight_decay=0.3, **given), n.named_parameters())
    )
    assert type(optimizer).__name__ == NAMES[word]
    group = optimizer.param_groups[0]
    assert {name: group[name] for name in given} == given
    kind = getattr(torch.optim, NAMES[word], None) if word in ("adamw", "sgd") else getattr(timm.optim, NAMES[word])
    more = {"momentum": 0.9} if word == "sgd" else {}
    _, theirs = stepped(lambda n: kind(n.parameters(), lr=0.01, weight_decay=0.3, **given, **more))
    torch.testing.assert_close(weights, theirs)
    plain = build_optimizer(OptimConfig(optimizer=word), [("a.weight", nn.Parameter(torch.zeros(2, 2)))])
    assert plain.param_groups[0].get("betas") == OWN.get(word)


def test_muon_leaves_the_head_and_what_is_no_matrix_to_adamw():
    network = Classifier(arch="micro/4", image_size=16, classes=3, optimizer="muon")
    names = {id(p): name for name, p in network.named_parameters()}
    groups = build_optimizer(network.config, network.trained()).param_groups
    by = {bool(g.get("use_fallback")): {names[id(p)] for p in g["params"]} for g in groups}
    assert {"network.head.weight", "network.pool.cls", "network.position.tables.0", "network.norm.weight"} <= by[True]
    assert by[False] == {
        name for name in names.values() if name.endswith("weight") and "norm" not in name and "head" not in name
    }


def test_layer_rates_are_timms_for_its_own_network():
    """Each of our parameters has the rate of its counterpart, with the same number of blocks."""
    from timm.models import VisionTransformer
    from timm.optim import param_groups_layer_decay

    theirs = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=3, num_heads=3, num_classes=5)
    groups = param_groups_layer_decay(theirs, weight_decay=0.0, layer_decay=0.7)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    expected = {name: scale[id(p)] for name, p in theirs.named_parameters()}
    ours = layer_rates([name for name, _ in Classifier(arch="micro/4", image_size=16).named_parameters()], 0.7)
    depth = 1 + max(int(name.split(".")[2]) for name in ours if name.startswith("network.blocks"))
    pairs = {
        "network.stem.embedding.weight": "patch_embed.proj.weight", "network.pool.cls": "cls_token",
        "network.position.tables.0": "pos_embed", "network.norm.bias": "norm.bias",
        "network.head.weight": "head.weight",
    }  # fmt: skip
    last = {f"network.blocks.{depth - i}.mlp.fc1.weight": f"blocks.{3 - i}.mlp.fc1.weight" for i in (1, 2, 3)}
    for mine, timms in (pairs | last).items():
        lower = 0.7 ** (depth - 3) if timms in ("patch_embed.proj.weight", "cls_token", "pos_embed") else 1
        assert ours[mine] == pytest.approx(expected[timms] * lower), mine
    assert ours["network.blocks.0.norm1.weight"] == ours["network.blocks.0.attention.qkv.weight"]


def test_layer_rates_reach_the_optimizer_and_the_schedule_keeps_them():
    network = Classifier(arch="micro/4", image_size=16, classes=3, lr=0.1, layer_decay=0.5, warmup_steps=2)
    optimizer = build_optimizer(network.config, network.trained())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(network.config, 10))
    rates = [group["lr"] for group in optimizer.param_groups]
    assert set(rates) == {0.0}
    for _ in range(2):
        optimizer.step(), schedule.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx(
        [0.1 * 0.5**i for i in range(len(rates))]
    )  # the head's first, which is the one logged
    assert len(rates) == len(network.network.blocks) + 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"optimizer": "sgd", "betas": (0.9, 0.9)},
            "model.betas has no effect with model.optimizer sgd; it is for adamw",
        ),
        ({"optimizer": "lion", "eps": 1e-6}, "model.eps has no effect with model.optimizer lion"),
        ({"optimizer": "adafactor", "betas": (0.9, 0.9)}, "model.betas has no effect with model.optimizer adafactor"),
        ({"betas": (0.9, 1.0)}, "model.betas is .0.9, 1.0.; give two numbers"),
        ({"eps": -1.0}, "model.eps is -1.0"),
        ({"layer_decay": 0.0}, "model.layer_decay is 0.0; it must be above 0"),
        ({"layer_decay": 0.7, "arch": "R14x0.5", "image_size": 32}, "R14x0.5 has none, so leave it out"),
        ({"min_lr": 1e-5, "schedule": "linear"}, "model.min_lr has no effect with model.schedule linear"),
        ({"min_lr": 0.1, "lr": 0.01}, "model.min_lr is 0.1, above model.lr 0.01"),
        ({"warmup_epochs": 1, "warmup_steps": 3}, "both give the length of the warm-up"),
        ({"warmup_epochs": -1.0}, "model.warmup_epochs is -1.0"),
    ],
)
def test_options_without_effect_or_meaning_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Classifier(**{"arch": "micro/4", "image_size": 16} | options)
