"""AxialResNet: its attention against equation 4 of Axial-DeepLab in NumPy, and what a unit does with it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.config import ViTConfig
from vitexp.nn.init import initialise
from vitexp.nn.resnet_axial import HEADS, AxialUnit, LineAttention
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import build


def moved(module: nn.Module) -> nn.Module:
    """With every parameter far from its initial value."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.3)
    return module


def normed(values: np.ndarray, norm: nn.GroupNorm) -> np.ndarray:
    """GroupNorm of one line, in 32 groups with epsilon 1e-4. Shapes: (C, L)."""
    groups = values.reshape(32, -1)
    groups = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-4)
    scale, shift = (one.detach().double().numpy()[:, None] for one in (norm.weight, norm.bias))
    return groups.reshape(values.shape) * scale + shift


def by_hand(attention: LineAttention, line: np.ndarray) -> np.ndarray:
    """y_o = sum over p of softmax(q_o k_p + q_o r_(p-o) + k_p s_(p-o)) (v_p + t_(p-o)), a head and place at a time."""
    channels, length = line.shape
    wide = channels // HEADS
    table = attention.offsets.detach().double().numpy()
    qkv = normed(attention.weight.detach().double().numpy() @ line, attention.gn_qkv)
    out = np.zeros_like(line)
    for head in range(HEADS):
        q, k, v = np.split(qkv[2 * wide * head : 2 * wide * (head + 1)], [wide // 2, wide])
        for o in range(length):
            r, s, t = np.split(table[[p - o + length - 1 for p in range(length)]].T, [wide // 2, wide])
            logits = [q[:, o] @ k[:, p] + q[:, o] @ r[:, p] + k[:, p] @ s[:, p] for p in range(length)]
            shares = np.exp(logits) / np.exp(logits).sum()
            out[wide * head : wide * (head + 1), o] = sum(a * (v[:, p] + t[:, p]) for p, a in enumerate(shares))
    return normed(out, attention.gn_out)


def test_attention_along_a_line_by_hand() -> None:
    attention, lines = moved(LineAttention(32, 5)), torch.randn(3, 32, 5)
    assert isinstance(attention, LineAttention)
    for line, found in zip(lines, attention(lines), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), by_hand(attention, line.double().numpy()), atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_is_rows_then_columns_between_two_convolutions(stride: int) -> None:
    unit, images = moved(AxialUnit(64, 32, stride, (4, 6))), torch.randn(2, 64, 4, 6)
    assert isinstance(unit, AxialUnit)
    hidden = F.relu(unit.gn1(unit.conv1(images)))
    rows = torch.stack([unit.row(hidden[:, :, row]) for row in range(4)], dim=2)
    mixed = torch.stack([unit.column(rows[:, :, :, column]) for column in range(6)], dim=3)
    if stride == 2:
        mixed = mixed.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))
    expected = F.relu(unit.gn_proj(unit.conv_proj(images)) + unit.gn3(unit.conv3(F.relu(mixed))))
    assert expected.shape == (2, 128, 4 // stride, 6 // stride)
    torch.testing.assert_close(unit(images), expected)


def test_rows_see_rows_and_columns_columns() -> None:
    """Told by gradients: after rows alone a place has seen its row, after both everything."""
    unit = moved(AxialUnit(32, 32, 1, (3, 4)))
    assert isinstance(unit, AxialUnit)
    hidden = torch.randn(1, 32, 3, 4, requires_grad=True)
    unit.spatial(hidden)[0, :, 1, 2].square().sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().amax(1).min() > 0
    (alone,) = torch.autograd.grad(unit.row(hidden[:, :, 1])[0, :, 2].square().sum(), hidden)
    seen = alone[0].abs().amax(0) > 0
    assert seen.tolist() == [[False] * 4, [True] * 4, [False] * 4]


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("arch", "size"), [("R50x1", 224), ("R26x0.5", (64, 96))])
def test_parameters_by_hand(arch: str, size: int | tuple[int, int]) -> None:
    """A unit of C channels loses 9 C² and 2 C of its norm, and gains two attentions along lines as long as its maps."""
    with torch.device("meta"):
        plain, axial = (build(ViTConfig(arch=arch, image_size=size, resnet=word)) for word in ("postact", "axial"))  # type: ignore[arg-type]
    rows, columns = (size, size) if isinstance(size, int) else size
    expected, units, width = (
        numbers(plain),
        {"R50x1": (3, 4, 6, 3), "R26x0.5": (2, 2, 2, 2)}[arch],
        int(64 * float(arch[4:])),
    )
    for stage, count in enumerate(units):
        for unit in range(count):
            c, halved = width * 2**stage, 4 * 2 ** (stage - (stage > 0 and unit == 0))
            expected -= 9 * c**2 + 2 * c
            expected += sum(2 * c**2 + 6 * c + (2 * side // halved - 1) * c // 4 for side in (rows, columns))
    assert numbers(axial) == expected


def starts(word: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build(ViTConfig(arch="R14x0.5", image_size=64, resnet=word)).state_dict())  # type: ignore[arg-type]


def test_everything_else_starts_as_in_the_other_order_and_a_unit_as_its_shortcut() -> None:
    plain, axial = starts("postact"), starts("axial")
    both = plain.keys() & axial.keys()
    assert all(torch.equal(plain[name], axial[name]) for name in both)
    assert {name.split(".")[-2] for name in plain.keys() - both} == {"conv2", "gn2"}
    assert {name.split(".")[4] for name in axial.keys() - both} == {"row", "column"}
    attention = LineAttention(256, 40)
    initialise(attention, 0)
    assert attention.weight.std().item() == pytest.approx(1 / 256, rel=0.02)
    assert attention.offsets.std().item() == pytest.approx(1 / 32, rel=0.05)


def test_gradients_reach_every_parameter_and_images_keep_apart() -> None:
    torch.manual_seed(0)
    net = ResNet(ViTConfig(arch="R14x0.5", image_size=(64, 48), classes=10, resnet="axial"))
    nn.init.normal_(net.head.weight)
    for name, parameter in net.named_parameters():
        if name.endswith("gn3.weight"):
            nn.init.ones_(parameter)
    images = torch.randn(2, 3, 64, 48)
    net(images).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    torch.testing.assert_close(net(images)[:1], net(images[:1]), rtol=1e-4, atol=1e-4)


def test_maps_of_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match="a stage has maps of 1 x 2: use images of more than 32 pixels each way"):
        build(ViTConfig(arch="R26x0.5", image_size=(32, 64), resnet="axial"))
    with torch.device("meta"):
        build(ViTConfig(arch="R26x0.5", image_size=33, resnet="axial"))
