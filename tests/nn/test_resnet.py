"""The hybrid trunk: padding and standardisation by hand, the whole against timm's post-activation ResNet."""

from functools import partial

import numpy as np
import pytest
import torch
from timm.layers import StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from torch import nn

from vitexp.nn import resnet
from vitexp.nn.init import initialise
from vitexp.nn.resnet import StandardisedConv, Trunk, Unit, pad_same, same_padding, standardise


# By hand: for ceil(size / stride) values, (n - 1) * stride + kernel pixels are needed; the odd one goes after.
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (112, 3, 2, (0, 1)),
        (56, 3, 1, (1, 1)),
        (56, 1, 2, (0, 0)),
        (7, 3, 2, (1, 1)),
        (5, 7, 2, (3, 3)),
        (1, 3, 2, (1, 1)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_rows_and_columns_are_padded_apart() -> None:
    padded = pad_same(torch.ones(1, 1, 4, 5), 3, 2, value=9.0)[0, 0]
    assert padded.shape == (5, 7)
    assert padded[0].tolist() == [9, 1, 1, 1, 1, 1, 9]
    assert padded[4].tolist() == [9] * 7


def test_strided_convolution_by_hand() -> None:
    conv = StandardisedConv(1, 1, 3, 2)
    nn.init.normal_(conv.weight)
    image, kernel = torch.randn(4, 4), standardise(conv.weight)[0, 0].detach()
    outside = torch.zeros(6, 6)
    outside[:4, :4] = image
    expected = [[(outside[r : r + 3, c : c + 3] * kernel).sum() for c in (0, 2)] for r in (0, 2)]
    torch.testing.assert_close(conv(image[None, None])[0, 0].detach(), torch.tensor(expected))


def test_standardisation_by_numpy() -> None:
    weight = np.random.default_rng(0).normal(3.0, 1e-4, (5, 4, 3, 3))
    expected = np.stack([(w - w.mean()) / (np.sqrt(((w - w.mean()) ** 2).mean()) + 1e-5) for w in weight])
    # The deviations are so small that a tenth of them is the epsilon: another epsilon, or n - 1, would show.
    np.testing.assert_allclose(standardise(torch.from_numpy(weight)).numpy(), expected, rtol=1e-7)


def test_a_unit_starts_as_its_shortcut() -> None:
    unit = Unit(128, 32, 1)
    initialise(unit, 0)
    images = torch.randn(2, 128, 4, 4)
    assert torch.equal(unit(images), images.relu())


@pytest.mark.parametrize(("blocks", "stride", "channels"), [((), 4, 64), ((1,), 4, 256), ((1, 1, 1), 16, 1024)])
@pytest.mark.parametrize("size", [(32, 48), (30, 17)])
def test_output_size(blocks: tuple[int, ...], stride: int, channels: int, size: tuple[int, int]) -> None:
    trunk = Trunk(blocks)
    initialise(trunk, 0)
    expected = (trunk.output_size(size[0]), trunk.output_size(size[1]))
    assert trunk(torch.randn(1, 3, *size)).shape == (1, channels, *expected)
    assert expected == (-(-size[0] // stride), -(-size[1] // stride))


def trunk_from_timm(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = {"norm": "gn", "downsample.conv": "conv_proj", "downsample.norm": "gn_proj"}
    ours = {}
    for name, value in theirs.items():
        name = name.replace("stem.conv", "conv_root").replace("stem.norm", "gn_root").replace(".blocks", "")
        for part in ("downsample.conv", "downsample.norm", "norm"):
            name = name.replace(part, parts[part])
        ours[name] = value
    return ours


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_trunk_equals_timm(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # The two place the epsilon of the standardisation differently; that one is tested above, so it is left out here.
    monkeypatch.setitem(resnet.STANDARDISE_EPS, "postact", 0.0)
    torch.manual_seed(0)
    theirs = ResNetV2(
        layers=(2, 1, 2),
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-12),
    ).eval()
    for module in theirs.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    ours = Trunk((2, 1, 2))
    ours.load_state_dict(trunk_from_timm(theirs.state_dict()))
    # In double precision, where rounding cannot hide a difference of method.
    ours, theirs, images = ours.double(), theirs.double(), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.forward_features(images)
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("order", ["postact", "preact"])
def test_gradients_of_standardised_weights_are_those_of_the_formula(order: str) -> None:
    kernel = torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.01
    along = torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, written_out = kernel.clone().requires_grad_(), kernel.clone().requires_grad_()
    (standardise(ours, order) * along).sum().backward()
    std, mean = torch.std_mean(written_out, dim=(1, 2, 3), correction=0, keepdim=True)
    scale = std + 1e-5 if order == "postact" else (std**2 + 1e-10).sqrt()
    ((written_out - mean) / scale * along).sum().backward()
    torch.testing.assert_close(ours.grad, written_out.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["postact", "preact"])
def test_a_constant_kernel_is_standardised_to_zero(order: str) -> None:
    kernel = torch.full((2, 3, 3, 3), 0.25, requires_grad=True)
    standardise(kernel, order).sum().backward()
    assert not standardise(kernel, order).any()
    assert kernel.grad is not None
    assert bool(torch.isfinite(kernel.grad).all())
