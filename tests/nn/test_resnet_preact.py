"""BiT's trunk: its standardisation by NumPy, and the pool's border by hand. The whole is in test_resnet_network.py."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vitexp.nn import resnet
from vitexp.nn.init import initialise
from vitexp.nn.resnet import PreactUnit as Unit

Conv, PreactTrunk, standardise = (
    partial(part, order="preact") for part in (resnet.StandardisedConv, resnet.Trunk, resnet.standardise)
)


def test_standardisation_by_numpy() -> None:
    weight = np.random.default_rng(0).normal(3.0, 1e-4, (5, 4, 3, 3))
    expected = np.stack([(w - w.mean()) / np.sqrt(((w - w.mean()) ** 2).mean() + 1e-10) for w in weight])
    # The variances are so small that a hundredth of them is the epsilon: another epsilon, or n - 1, would show.
    np.testing.assert_allclose(standardise(torch.from_numpy(weight)).numpy(), expected, rtol=1e-7)


def test_strided_convolution_by_hand() -> None:
    conv = Conv(1, 1, 3, stride=2)
    nn.init.normal_(conv.weight)
    image, kernel = torch.randn(4, 4), standardise(conv.weight)[0, 0].detach()
    outside = torch.zeros(6, 6)
    outside[1:5, 1:5] = image
    expected = [[(outside[r : r + 3, c : c + 3] * kernel).sum() for c in (0, 2)] for r in (0, 2)]
    torch.testing.assert_close(conv(image[None, None])[0, 0].detach(), torch.tensor(expected))


def test_the_pool_has_a_border_of_zeros() -> None:
    trunk = PreactTrunk(())
    initialise(trunk, 0)
    trunk.gn = nn.Identity()  # type: ignore[assignment]
    trunk.conv_root = nn.Conv2d(3, 64, 1, stride=2)  # type: ignore[assignment]
    nn.init.zeros_(trunk.conv_root.weight)
    nn.init.constant_(trunk.conv_root.bias, -1.0)  # type: ignore[arg-type]
    seen = []
    trunk.gn.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    trunk(torch.zeros(1, 3, 8, 8))
    assert seen[0][0, 0].tolist() == [[0, 0], [0, -1]]


def test_a_shortcut_that_changes_shape_starts_after_the_norm() -> None:
    unit = Unit(64, 64, 1)
    initialise(unit, 0)
    nn.init.zeros_(unit.conv3.weight)
    images = torch.randn(2, 64, 4, 4)
    torch.testing.assert_close(unit(images), unit.conv_proj(unit.gn1(images).relu()))
    same = Unit(256, 64, 1)
    initialise(same, 0)
    nn.init.zeros_(same.conv3.weight)
    wide = torch.randn(2, 256, 4, 4)
    assert torch.equal(same(wide), wide)


@pytest.mark.parametrize("size", [(32, 48), (30, 17), (8, 8), (1, 1)])
def test_output_size(size: tuple[int, int]) -> None:
    trunk = PreactTrunk((1, 1, 1, 1))
    initialise(trunk, 0)
    assert trunk(torch.randn(1, 3, *size)).shape == (1, 2048, -(-size[0] // 32), -(-size[1] // 32))
