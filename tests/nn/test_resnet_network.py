"""The ResNet baselines: sizes and logits of timm's BiT, and what has no effect on them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip
from timm.layers import StdConv2d, StdConv2dSame
from timm.models.resnetv2 import ResNetV2

from vitexp.nn import resnet
from vitexp.nn.arch import RESNETS
from vitexp.nn.config import ViTConfig, resolve
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import build

TIMM_EPS = 1e-8


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arch", "theirs"),
    [
        ("R50x1", "resnetv2_50x1_bit"),
        ("R50x3", "resnetv2_50x3_bit"),
        ("R101x1", "resnetv2_101x1_bit"),
        ("R152x2", "resnetv2_152x2_bit"),
        ("R152x4", "resnetv2_152x4_bit"),
    ],
)
def test_parameter_counts_are_those_of_timm(arch: str, theirs: str) -> None:
    with torch.device("meta"):
        assert count(build(ViTConfig(arch=arch))) == count(timm.create_model(theirs, num_classes=1000))


# Backbones without a head, in millions: computed by hand from the channels for the project's sheet of facts.
@pytest.mark.parametrize(
    ("arch", "millions"), [("R50x1", 23.5), ("R50x2", 93.9), ("R101x1", 42.5), ("R152x1", 58.1), ("R152x2", 232)]
)
def test_postact_backbones(arch: str, millions: float) -> None:
    with torch.device("meta"):
        model = build(ViTConfig(arch=arch, resnet="postact"))
    assert isinstance(model, ResNet)
    assert count(model.trunk) / 1e6 == pytest.approx(millions, rel=0.003)


def from_timm(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        "stem.conv": "trunk.conv_root",
        "stem.norm": "trunk.gn_root",
        "head.fc": "head",
        "downsample.conv": "conv_proj",
        "downsample.norm": "gn_proj",
        ".blocks": "",
        "stages": "trunk.stages",
        "norm.": "trunk.gn.",
        "norm": "gn",
    }
    ours = {}
    for name, value in theirs.items():
        for old, new in renamed.items():
            if old != "norm." or name.startswith(old):
                name = name.replace(old, new)
        ours[name] = value.flatten(1) if name == "head.weight" else value
    return ours


def reference(blocks: tuple[int, ...], order: str, **choices: Any) -> ResNetV2:
    """timm's network with every parameter away from its start."""
    torch.manual_seed(0)
    how: dict[str, Any] = (
        {"stem_type": "fixed", "conv_layer": partial(StdConv2d, eps=TIMM_EPS)}
        if order == "preact"
        else {"preact": False, "stem_type": "same", "conv_layer": partial(StdConv2dSame, eps=1e-12)}
    )
    theirs = ResNetV2(layers=list(blocks), num_classes=7, **how, **choices).eval()
    for module in theirs.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5 if order == "preact" else 1e-6
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    return theirs


@pytest.mark.parametrize("order", ["preact", "postact"])
@pytest.mark.parametrize(("width", "size"), [(1, (64, 64)), (2, (32, 48)), (0.5, (33, 47))])
@torch.no_grad()
def test_logits_equal_timm(order: Any, width: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # timm has other epsilons of the standardisation; ours are tested in the two other files on ResNets.
    monkeypatch.setitem(resnet.STANDARDISE_EPS, "postact", 0.0)
    monkeypatch.setitem(resnet.STANDARDISE_EPS, "preact", TIMM_EPS)
    # Two stages have every kind of unit.
    monkeypatch.setitem(RESNETS, 26, (1, 2))
    theirs = reference((1, 2), order, width_factor=width, channels=(256, 512))
    ours = build(ViTConfig(arch=f"R26x{width}", image_size=size, classes=7, resnet=order))
    ours.load_state_dict(from_timm(theirs.state_dict()))
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = theirs.double()(images)
    assert expected.std() > 0.03
    torch.testing.assert_close(ours.double()(images), expected, rtol=0, atol=1e-7)
    read = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    torch.testing.assert_close(ours.features(images), read, rtol=0, atol=1e-7)


@torch.no_grad()
def test_r50x1_equals_timms_own_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("resnetv2_50x1_bit", num_classes=5).eval()
    nn.init.normal_(theirs.head.fc.weight, std=0.05)
    theirs = theirs.double()
    ours = build(ViTConfig(arch="R50x1", image_size=64, classes=5))
    ours.double().load_state_dict(from_timm(theirs.state_dict()))
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = theirs(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-4)
    monkeypatch.setitem(resnet.STANDARDISE_EPS, "preact", TIMM_EPS)
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("order", ["preact", "postact"])
def test_contract(order: Any) -> None:
    config = ViTConfig(arch="R14x0.5", image_size=(8, 12), classes=3, resnet=order, head="tanh", head_bias=-6.9)
    net = build(config)
    images = torch.randn(2, 3, 8, 12)
    assert net.features(images).shape == (2, 1024)  # type: ignore[operator]
    assert torch.equal(net(images), torch.full((2, 3), -6.9))
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 8\) met a network built for \(3, 8, 12\)"):
        net(torch.randn(2, 3, 8, 8))


def test_every_parameter_is_trained() -> None:
    net = build(ViTConfig(arch="R26x0.5", image_size=(40, 33), classes=3))
    nn.init.normal_(net.head.weight)  # type: ignore[union-attr, arg-type]
    net(torch.randn(2, 3, 40, 33)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_starting_values() -> None:
    torch.manual_seed(0)
    net = build(ViTConfig(arch="R26x1", image_size=8, classes=3))
    assert isinstance(net, ResNet)
    unit = net.trunk.stages[3][1]
    assert unit.conv2.weight.std().item() == pytest.approx((9 * 512) ** -0.5, rel=0.01)  # type: ignore[union-attr]
    assert torch.equal(unit.gn3.weight, torch.ones(512))
    assert not net.head.weight.any()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pos_embed": "2d"}, "pos_embed 2d has no effect on the ResNet R50x1; leave it out"),
        ({"pos_at": "every"}, "pos_at every has no effect on the ResNet R50x1"),
        ({"pool": "gap"}, "pool gap has no effect on the ResNet R50x1"),
        ({"attention": "local"}, "attention local has no effect on the ResNet R50x1"),
        ({"window": 5}, "window 5 has no effect on the ResNet R50x1"),
        ({"dropout": 0.1}, "dropout 0.1 has no effect on the ResNet R50x1"),
        ({"stem": "patch"}, "stem patch has no effect on the ResNet R50x1"),
        ({"resnet": "v2"}, "resnet 'v2' is unknown; allowed are preact, postact"),
        ({"arch": "B/16", "resnet": "postact"}, "resnet postact has no effect on arch B/16: only a ResNet"),
        ({"arch": "R50+B/16", "resnet": "postact"}, r"resnet postact has no effect on arch R50\+B/16"),
    ],
)
def test_what_has_no_effect_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(ViTConfig(**{"arch": "R50x1", **choices}))


def test_defaults_pass_and_stay() -> None:
    config = ViTConfig(arch="R50x1", resnet="postact", head="tanh")
    assert resolve(config) == config
