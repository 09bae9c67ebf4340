"""What each of the later choices inside a block touches, what it leaves alone, and what it cannot be with."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from vitexp.nn.arch import parse_arch
from vitexp.nn.registers import Placed
from vitexp.nn.vit import ViT, ViTConfig, resolve

SIZE = (8, 12)
IMAGES = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
LEAVES = ("weight", "bias")


def network(**choices: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTConfig(**{"arch": "micro/2", "image_size": SIZE, "classes": 10, **choices}))


ADDS: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "registers": ({"registers": 3}, {"registers.tokens"}, set()),
    "norm": ({"norm": "rms"}, set(), {"#.norm1.bias", "#.norm2.bias", "norm.bias"}),
    "mlp": (
        {"mlp": "swiglu"},
        {f"#.mlp.{matrix}.{leaf}" for matrix in ("gate", "up") for leaf in LEAVES},
        {"#.mlp.fc1.weight", "#.mlp.fc1.bias"},
    ),
    "qk_norm": ({"qk_norm": True}, {f"#.attention.{n}_norm.{leaf}" for n in "qk" for leaf in LEAVES}, set()),
    "layer_scale": ({"layer_scale": 0.1}, {"#.scale1.gamma", "#.scale2.gamma"}, set()),
    "block": ({"block": "parallel"}, set(), {"#.norm2.weight", "#.norm2.bias"}),
    "drop_path": ({"drop_path": 0.5}, set(), set()),
    "patch_dropout": ({"patch_dropout": 0.5}, set(), set()),
}  # fmt: skip
"""What each choice adds to the names of a state dict, and takes from them."""


def names(state: dict[str, Tensor]) -> set[str]:
    return {re.sub(r"blocks\.\d+", "#", name) for name in state}


@pytest.mark.parametrize("option", ADDS)
def test_all_other_parameters_start_as_the_baselines(option: str) -> None:
    choices, added, gone = ADDS[option]
    with_it, without = network(**choices).state_dict(), network().state_dict()
    assert names(with_it) == names(without) - gone | added
    both = [name for name in with_it.keys() & without.keys() if with_it[name].shape == without[name].shape]
    assert len(with_it.keys() & without.keys()) - len(both) == (4 if option == "mlp" else 0)
    assert all(torch.equal(with_it[name], without[name]) for name in both)


@pytest.mark.parametrize("option", ADDS)
def test_gradients_reach_every_parameter(option: str) -> None:
    net = network(**ADDS[option][0]).train()
    torch.nn.init.normal_(net.head.weight)
    net(IMAGES).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize("choices", [{"norm": "rms", "qk_norm": True}, {"qk_norm": True}, {"stem": "conv"}], ids=str)
@torch.no_grad()
def test_norms_keep_their_precision_under_autocast(choices: dict[str, Any]) -> None:
    """What torch says of a norm in two precisions is an error here."""
    net, seen = network(**choices).eval(), []
    torch.nn.init.normal_(net.head.weight)
    net.blocks[2].norm1.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    exact = net(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        assert (net(IMAGES) - exact).abs().max() < 0.05 * exact.abs().max()
    assert seen == [torch.float32] * 2


def test_the_halves_of_an_axial_layer_are_changed_alike() -> None:
    choices: dict[str, Any] = {"norm": "rms", "mlp": "swiglu", "qk_norm": True, "layer_scale": 0.1, "drop_path": 0.3}
    net = network(attention="axial", pool="gap", **choices)
    first = {name for name, _ in net.blocks[1].named_modules() if name and not name.startswith("column")}
    second = {name for name, _ in net.blocks[1].column.named_modules() if name}
    assert second == first
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in net.modules())


@pytest.mark.parametrize(
    ("arch", "hidden"), [("Ti/16", 512), ("S/16", 1024), ("B/16", 2048), ("L/16", 2728), ("micro/2", 168)]
)
def test_a_gated_mlp_has_the_parameters_of_the_other(arch: str, hidden: int) -> None:
    size = 224 if arch.endswith("16") else 8

    def parameters(mlp: str) -> tuple[int, ViT]:
        with torch.device("meta"):
            net = ViT(ViTConfig(arch=arch, image_size=size, mlp=mlp))
        return sum(p.numel() for block in net.blocks for p in block.mlp.parameters()), net

    (plain, _), (gated, net) = parameters("gelu"), parameters("swiglu")
    assert net.blocks[0].mlp.gate.out_features == hidden
    assert abs(gated / plain - 1) < 0.02


@pytest.mark.parametrize(("pos_embed", "pos_at"), [
    ("none", "stem"), ("1d", "every"), ("2d", "shared"), ("relative", "stem"), ("sincos2d", "stem"), ("rope", "stem"),
])  # fmt: skip
@pytest.mark.parametrize("pool", ["cls", "gap", "map"])
@torch.no_grad()
def test_registers_have_no_place(pos_embed: str, pos_at: str, pool: str) -> None:
    """Which of them stands where makes no difference, as it does for patches; and each is heard."""
    net = network(registers=3, pos_embed=pos_embed, pos_at=pos_at, pool=pool).eval()
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    before = net(IMAGES)
    net.registers.tokens.copy_(net.registers.tokens[:, [2, 0, 1]])
    torch.testing.assert_close(net(IMAGES), before, rtol=0, atol=1e-5)
    net.registers.tokens[:, 1] += torch.randn(64)
    assert (net(IMAGES) - before).abs().amax(1).min() > 1e-4
    assert net.position.layout.tokens == (pool == "cls") + 24
    assert net.layout.tokens == net.encode(IMAGES).shape[1] == (pool == "cls") + 3 + 24


@torch.no_grad()
def test_registers_change_no_logit_between_the_others() -> None:
    net, seen = network(registers=2, pos_embed="relative").eval(), []
    net.position.offsets[0].normal_()
    full = net.blocks[0].attention
    full.mix = lambda query, key, value, bias: seen.append(bias) or value
    net(IMAGES)
    query = torch.randn(3, 4, 27, 16)
    placed = net.position.bias(query[:, :, [0, *range(3, 27)]], 0)
    whole = Placed(net.position, net.registers).bias(query, 0)
    others = torch.tensor([0, *range(3, 27)])
    assert torch.equal(whole[:, :, others][..., others], placed)
    assert not whole[:, :, 1:3].any()
    assert not whole[..., 1:3].any()
    assert seen[0].shape == (3, 4, 27, 27)


@torch.no_grad()
def test_stochastic_depth_grows_with_the_layer_and_keeps_the_mean() -> None:
    net = network(drop_path=0.3)
    assert [getattr(block.drop_path, "rate", 0.0) for block in net.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    torch.manual_seed(0)
    branch = net.blocks[3].drop_path.train()(torch.ones(20_000, 1, 1)).flatten()
    assert sorted(set(branch.tolist())) == pytest.approx([0.0, 1 / 0.7])
    assert branch.mean().item() == pytest.approx(1.0, abs=4 * (0.3 / 0.7 / 20_000) ** 0.5)


@torch.no_grad()
def test_patch_dropout_keeps_the_prefix_and_different_patches_of_each_image() -> None:
    net, seen = network(patch_dropout=0.5, registers=2).train(), []
    net.blocks[0].norm1.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    net.encode(IMAGES)
    net.encode(IMAGES)
    net.eval().encode(IMAGES)
    first, second, whole = seen
    assert first.shape == second.shape == (3, 3 + 12, 64)
    assert whole.shape == (3, 3 + 24, 64)
    assert torch.equal(first[:, :3], whole[:, :3])
    places = [[whole[i].eq(token).all(-1).nonzero().item() for token in first[i, 3:]] for i in range(3)]
    assert all(len(set(place)) == 12 for place in places)
    assert len({tuple(sorted(place)) for place in places}) == 3
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"registers": -1}, "registers is -1, and must be 0 or a number of tokens"),
        ({"norm": "batch"}, "norm 'batch' is unknown; allowed are layer, rms, or MODULE:NAME of your own"),
        ({"mlp": "geglu"}, "mlp 'geglu' is unknown; allowed are gelu, swiglu, or MODULE:NAME of your own"),
        ({"block": "post"}, "block 'post' is unknown; allowed are sequential, parallel"),
        ({"layer_scale": -0.1}, "layer_scale is -0.1, and must be a finite starting value"),
        ({"layer_scale": float("inf")}, "layer_scale is inf"),
        ({"drop_path": 1.0}, "drop_path is 1.0, and must be at least 0 and below 1"),
        ({"drop_path": 0.1, "arch": "w64d1m256h4/2"}, "drop_path 0.1 has no effect on a single layer"),
        ({"patch_dropout": -0.5}, "patch_dropout is -0.5"),
        ({"patch_dropout": 0.5, "pos_embed": "rope"}, "patch_dropout 0.5 cannot be with pos_embed rope at stem, which"),
        ({"patch_dropout": 0.5, "pos_embed": "relative"}, "cannot be with pos_embed relative"),
        ({"patch_dropout": 0.5, "pos_at": "every"}, "cannot be with pos_embed 1d at every"),
        ({"patch_dropout": 0.5, "attention": "local"}, "cannot be with attention local"),
        ({"mlp": "swiglu", "gelu": "exact"}, "gelu exact has no effect with mlp swiglu; leave it out"),
        ({"stem": "conv", "arch": "micro/3"}, "stem conv halves the image .*choose another arch than 'micro/3'"),
        ({"stem": "conv", "arch": "micro/1"}, "stem conv halves the image"),
        ({"stem": "conv", "arch": "w24d2m48h2/8"}, "from a multiple of 8 to the width 24"),
    ],
)
def test_mistakes_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**choices)


@pytest.mark.parametrize("option", ADDS)
def test_a_resnet_has_none_of_them(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} .* has no effect on the ResNet R14x0.5; leave it out"):
        resolve(ViTConfig(arch="R14x0.5", **ADDS[option][0]))


@pytest.mark.parametrize("option", ["dropout", "drop_path", "patch_dropout"])
def test_each_step_is_seeded_where_something_is_drawn(option: str) -> None:
    assert not ViTConfig().draws
    assert ViTConfig(**{option: 0.1}).draws  # type: ignore[arg-type]


def test_the_gelu_of_attention_pooling_stays_a_choice() -> None:
    probe, layers = (network(mlp="swiglu", pool=pool, gelu="exact").pool for pool in ("map", "class_attention"))
    assert {mlp.gelu for mlp in (probe.mlp, *(layer.mlp for layer in layers.layers))} == {torch.nn.functional.gelu}


@torch.no_grad()
def test_a_convolutional_stem_by_hand() -> None:
    """S/16 at 224 pixels has the channels of the source; each step halves the maps, and a patch is 31 pixels wide."""
    assert parse_arch("S/16", "conv").convolutions == (48, 96, 192, 384)
    assert parse_arch("Ti/16", "conv").convolutions == (24, 48, 96, 192)
    net = network(stem="conv", arch="micro/4", image_size=(16, 24)).eval()
    for parameter in net.stem.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 16, 24)
    maps = images
    for step, channels in ((0, 32), (1, 64)):
        weight, norm = net.stem.convolutions[step].weight, net.stem.norms[step]
        maps = torch.nn.functional.conv2d(torch.nn.functional.pad(maps, (1, 1, 1, 1)), weight, stride=2)
        grouped = maps.unflatten(1, (channels // 8, 8)).flatten(2)
        grouped = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, False, keepdim=True) + 1e-6).sqrt()
        maps = grouped.unflatten(2, (8, *maps.shape[2:])).flatten(1, 2)
        maps = (maps * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp_min(0)
    assert maps.shape == (2, 64, 4, 6)
    tokens = maps.flatten(2).transpose(1, 2) @ net.stem.embedding.weight.flatten(1).t() + net.stem.embedding.bias
    torch.testing.assert_close(net.stem(images), tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.stem(images)[:1], net.stem(images[:1]), rtol=0, atol=1e-5)  # no image sees another
