"""The whole network: sizes to the unit, timm's logits, and flags that mean what they say."""

import dataclasses
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitexp import axes
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.vit import ViT, ViTConfig, build, resolve

SIZE = (8, 12)
PATCHES = 4 * 6


def network(**choices: Any) -> ViT:
    """A small network with every parameter away from its start, so that nothing hides behind a zero."""
    torch.manual_seed(0)
    net = ViT(ViTConfig(**{"arch": "micro/2", "image_size": SIZE, "classes": 10, **choices})).eval()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return net


def count(**choices: Any) -> int:
    with torch.device("meta"):
        net = ViT(ViTConfig(**choices))
    return sum(parameter.numel() for parameter in net.parameters())


# Counts of Google's released models with one 1000-way linear layer.
@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("Ti/16", 5_717_416),
        ("S/16", 22_050_664),
        ("S/32", 22_878_952),
        ("B/8", 86_576_872),
        ("B/16", 86_567_656),
        ("B/32", 88_224_232),
        ("L/16", 304_326_632),
        ("L/32", 306_535_400),
        ("H/14", 632_045_800),
        ("R+Ti/16", 6_337_704),
        ("R26+S/32", 36_431_912),
        ("R26+B/32", 101_383_976),
        ("R50+B/16", 98_659_112),
        ("R50+B/32", 110_945_832),
        ("R50+L/16", 316_483_624),
        ("R50+L/32", 328_994_856),
    ],
)
def test_parameter_counts(arch: str, expected: int) -> None:
    assert count(arch=arch) == expected


def test_parameter_count_of_gap() -> None:
    assert count(arch="B/16", pool="gap") == 86_566_120


def test_parameter_differences() -> None:
    base, table = count(arch="B/16", pos_embed="none"), 197 * 768
    assert count(arch="B/16", pos_embed="1d") - base == table
    assert count(arch="B/16", pos_embed="1d", pos_at="every") - base == 12 * table
    assert count(arch="B/16", pos_embed="1d", pos_at="shared") - base == table
    assert count(arch="B/16", pos_embed="2d") - base == 768 + 28 * 384
    assert count(arch="B/16", pos_embed="2d", pos_at="every") - base == 12 * (768 + 28 * 384)
    assert count(arch="B/16", pos_embed="2d", pos_at="shared") - base == 768 + 28 * 384
    assert count(arch="B/16", pos_embed="relative") - base == 12 * 393 * 64
    assert count(arch="B/16", pos_embed="relative", pos_at="shared") - base == 393 * 64
    assert count(arch="B/16", pos_embed="sincos2d") == count(arch="B/16", pos_embed="rope") == base
    assert count(arch="B/16", pos_embed="none", head="tanh") - base == 768 * 768 + 768
    # The probe for the class token; attention, one norm and an MLP more: a layer less one norm.
    layer = 12 * 768**2 + 13 * 768
    assert count(arch="B/16", pos_embed="none", pool="map") - base == layer - 2 * 768
    assert count(arch="B/16", pos_embed="none", attention="local") == base
    gap = base - 768
    assert count(arch="B/16", pos_embed="none", pool="gap", attention="axial") - gap == 12 * layer
    assert base - count(arch="B/16", pos_embed="none", pool="gap") == 768


def from_timm(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        "patch_embed.proj": "stem.embedding",
        "cls_token": "pool.cls",
        "pos_embed": "position.tables.0",
        "attn.qkv": "attention.qkv",
        "attn.proj": "attention.out",
    }
    ours = {}
    for name, value in theirs.items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        ours[name] = value[0] if name == "position.tables.0" else value
    return ours


@pytest.mark.parametrize(("pos_embed", "timm_pos"), [("1d", "learn"), ("none", "none")])
@pytest.mark.parametrize("pool", ["cls", "gap"])
@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_same_weights_same_logits_as_timm(pos_embed: str, timm_pos: str, pool: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    cls = pool == "cls"
    theirs = VisionTransformer(
        img_size=size, patch_size=2, embed_dim=64, depth=4, num_heads=4, num_classes=10, act_layer="gelu_tanh",
        pos_embed=timm_pos, class_token=cls, global_pool="token" if cls else "avg", fc_norm=False,
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = network(pos_embed=pos_embed, pool=pool, image_size=size)
    ours.load_state_dict(from_timm(theirs.state_dict()))
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


ARCHS = [("micro/2", SIZE), ("Ti/16", (32, 48)), ("R+micro/16", (64, 96))]
EVERY_POSITION = [
    (word, at) for word, kind in POSITIONS.items() for at in axes.values("pos_at") if at not in kind.refused
]
BESIDE_CLS = [(word, at) for word, at in EVERY_POSITION if not POSITIONS[word].patches_alone]
EVERY_POOL = [(word, at, "cls") for word, at in BESIDE_CLS]
EVERY_POOL += [(word, at, pool) for word, at in EVERY_POSITION for pool in ("gap", "map")]


def shuffled_patches(net: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as they are, and with the stem's tokens in another order."""
    straight = net(images)
    order = torch.randperm(net.layout.patches, generator=torch.Generator().manual_seed(1))
    hook = net.stem.register_forward_hook(lambda _module, _inputs, tokens: tokens[:, order])
    try:
        return straight, net(images)
    finally:
        hook.remove()


@pytest.mark.parametrize(("pos_embed", "pos_at", "pool"), EVERY_POOL)
@pytest.mark.parametrize(("arch", "size"), ARCHS)
@torch.no_grad()
def test_only_none_is_blind_to_the_order_of_patches(
    arch: str, size: tuple[int, int], pos_embed: str, pos_at: str, pool: str
) -> None:
    net = network(arch=arch, image_size=size, pos_embed=pos_embed, pos_at=pos_at, pool=pool)
    straight, shuffled = shuffled_patches(net, torch.randn(2, 3, *size))
    assert straight.std() > 0.1
    assert torch.allclose(straight, shuffled, atol=1e-5) == (pos_embed == "none")


@torch.no_grad()
def test_none_is_blind_to_patches_moved_in_the_image() -> None:
    net, images = network(pos_embed="none"), torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(net(images), net(images.roll(4, dims=2).roll(-2, dims=3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pos_embed", "pos_at"), BESIDE_CLS)
@pytest.mark.parametrize(("arch", "size"), ARCHS)
@torch.no_grad()
def test_cls_reaches_the_head(arch: str, size: tuple[int, int], pos_embed: str, pos_at: str) -> None:
    net = network(arch=arch, image_size=size, pos_embed=pos_embed, pos_at=pos_at)
    images = torch.randn(2, 3, *size)
    before = net(images)
    net.pool.cls.add_(torch.randn_like(net.pool.cls))
    assert (net(images) - before).abs().amax(dim=1).min() > 1e-3


def test_offsets_in_rows_and_columns_are_refused_beside_a_class_token() -> None:
    with pytest.raises(ValueError, match=r"pos_embed relative2d cannot be with pool cls.*; use .* such as gap"):
        network(pos_embed="relative2d")


@pytest.mark.parametrize(("pos_embed", "pos_at", "pool"), EVERY_POOL)
def test_contract_of_every_choice(pos_embed: str, pos_at: str, pool: str) -> None:
    net = network(pos_embed=pos_embed, pos_at=pos_at, pool=pool)
    images, tokens = torch.randn(2, 3, *SIZE), PATCHES + (pool == "cls")
    assert net.layout.tokens == tokens
    assert net.encode(images).shape == (2, tokens, 64)
    assert net.features(images).shape == (2, 64)
    net(images).square().sum().backward()
    without = {name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert not without


@torch.no_grad()
def test_tanh_head_is_a_hidden_layer_over_the_same_readout() -> None:
    net, images = network(head="tanh"), torch.randn(2, 3, *SIZE)
    read = net.pool.read(net.encode(images), net.norm)
    hidden = torch.tanh(read @ net.pre_logits.weight.t() + net.pre_logits.bias)
    torch.testing.assert_close(net.features(images), hidden)
    torch.testing.assert_close(net(images), hidden @ net.head.weight.t() + net.head.bias)


def test_head_starts_at_its_bias() -> None:
    net = ViT(ViTConfig(arch="micro/2", image_size=8, classes=3, head_bias=-10.0))
    assert torch.equal(net(torch.randn(2, 3, 8, 8)), torch.full((2, 3), -10.0))


def test_dropout_follows_the_positions() -> None:
    net, seen = network(dropout=0.5), []
    net.train().dropout.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    images = torch.randn(2, 3, *SIZE)
    net(images)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], net.position.add(net.pool.prepend(net.stem(images)), 0))
    assert sum(isinstance(module, nn.Dropout) for module in net.modules()) == 1 + 2 * 4


def test_resolve_gives_a_network_one_spelling() -> None:
    one = resolve(ViTConfig(arch="R50+B/16", image_size=(224, 224)))
    other = resolve(ViTConfig(arch="B/16", stem="resnet50", image_size=224))
    assert one == other
    assert (one.arch, one.stem, one.image_size) == ("B/16", "resnet50", 224)
    assert resolve(one) == one
    assert resolve(ViTConfig()).stem == "patch"
    assert resolve(ViTConfig(image_size=[32, 48])).image_size == (32, 48)  # type: ignore[arg-type]


def test_both_spellings_are_the_same_network() -> None:
    one, other = (
        build(ViTConfig(arch=arch, stem=stem, image_size=64, classes=3)).state_dict()  # type: ignore[arg-type]
        for arch, stem in (("R+micro/16", "auto"), ("micro/16", "root"))
    )
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pos_embed": "none", "pos_at": "every"}, "pos_at every has no effect"),
        ({"pos_embed": "relative", "pos_at": "every"}, "pos_at every has no effect"),
        ({"pos_embed": "3d"}, "pos_embed '3d' is unknown; allowed are none, 1d, 2d, relative, sincos2d, rope"),
        ({"pool": "max"}, "pool 'max' is unknown; allowed are cls, gap, seqpool, map, class_attention"),
        ({"head": "mlp"}, "head 'mlp' is unknown; allowed are linear, tanh"),
        ({"stem": "resnet50"}, "resnet50 exists for /16 or /32, not for arch 'micro/2'"),
        ({"arch": "R50+B/16", "stem": "patch"}, "contradicts arch"),
        ({"arch": "B/16"}, r"patch 16 does not divide image_size \(8, 12\)"),
        ({"arch": "Q/2"}, "arch 'Q/2' is unknown"),
        ({"classes": 0}, "classes is 0, and must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0, and must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"image_size": (0, 8)}, "image_size is .0, 8., and must be at least 1 pixel"),
    ],
)
def test_mistakes_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**choices)


def test_config_can_drive_a_parser() -> None:
    assert dataclasses.is_dataclass(ViTConfig)
    assert not hasattr(ViTConfig, "__slots__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ViTConfig().arch = "L/16"  # type: ignore[misc]


def test_network_trains_and_moves_as_one() -> None:
    net = network(pos_embed="relative", pool="gap")
    clone = ViT(net.config)
    clone.load_state_dict(net.state_dict())
    images = torch.randn(2, 3, *SIZE)
    assert torch.equal(clone.eval()(images), net(images))
    assert clone.double()(images.double()).dtype == torch.float64
