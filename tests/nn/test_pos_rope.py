"""Rotary positions: complex numbers by hand, timm's rotation, and that only offsets show."""

import itertools

import numpy as np
import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.layers import apply_rot_embed_cat, build_rotary_pos_embed  # isort: skip

from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import Rope, angles
from vitexp.nn.position import Layout
from vitexp.nn.vit import ViT, ViTConfig

GRIDS = [(3, 4), (1, 1), (2, 5)]


def layout_of(grid: tuple[int, int] = (3, 4), prefix: int = 1, head_width: int = 8) -> Layout:
    return Layout(grid=grid, prefix=prefix, width=2 * head_width, heads=2, depth=3)


def make(layout: Layout) -> Rope:
    position = Rope(layout, "stem")
    initialise(position, 0)
    return position


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("grid", GRIDS)
def test_rotation_as_complex_numbers(grid: tuple[int, int], prefix: int) -> None:
    layout = layout_of(grid, prefix)
    heads = torch.randn(2, 2, layout.tokens, 8)
    expected = heads.numpy().copy().astype(np.float64)
    for row, column, pair in itertools.product(range(grid[0]), range(grid[1]), range(4)):
        place, band = (column, pair) if pair < 2 else (row, pair - 2)
        turn = np.exp(1j * place * 100.0 ** (-band / 2))
        token = prefix + row * grid[1] + column
        number = turn * (heads[:, :, token, 2 * pair].numpy() + 1j * heads[:, :, token, 2 * pair + 1].numpy())
        expected[:, :, token, 2 * pair], expected[:, :, token, 2 * pair + 1] = number.real, number.imag
    np.testing.assert_allclose(make(layout).rotate(heads, 1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_rotation_equals_timm(grid: tuple[int, int]) -> None:
    heads = torch.randn(2, 2, grid[0] * grid[1], 16)
    layout = layout_of(grid, 0, head_width=16)
    sin, cos = build_rotary_pos_embed(list(grid), dim=16, temperature=100.0, in_pixels=False)
    # timm turns the first half by the row and the second by the column.
    swapped = [table.view(-1, 2, 8).flip(1).flatten(1) for table in (sin, cos)]
    expected = apply_rot_embed_cat(heads, torch.cat(swapped, -1))
    torch.testing.assert_close(make(layout).rotate(heads, 0), expected, rtol=0, atol=1e-5)


def test_products_depend_on_the_offset_alone() -> None:
    layout = layout_of((4, 5), prefix=0)
    position = make(layout)
    query, key = (torch.randn(1, 1, 1, 8).expand(1, 1, 20, 8) for _ in range(2))
    logits = (position.rotate(query, 0) @ position.rotate(key, 0).transpose(-1, -2)).view(4, 5, 4, 5)
    by_offset: dict[tuple[int, int], list[float]] = {}
    for r, c, s, d in itertools.product(range(4), range(5), range(4), range(5)):
        by_offset.setdefault((s - r, d - c), []).append(logits[r, c, s, d].item())
    assert len(by_offset) == 7 * 9
    assert all(max(values) - min(values) < 1e-4 for values in by_offset.values())
    means = sorted(np.mean(values) for values in by_offset.values())
    assert min(np.diff(means)) > 1e-5, "and offsets differ, also in sign and direction"


def test_lengths_stay_and_the_prefix_is_not_turned() -> None:
    position, heads = make(layout_of(prefix=2)), torch.randn(2, 2, 14, 8)
    turned = position.rotate(heads, 0)
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))
    assert torch.equal(turned[:, :, :3], heads[:, :, :3]), "nor is the patch at row 0, column 0"
    assert not torch.isclose(turned[:, :, 3:], heads[:, :, 3:]).all(dim=-1).any()


def test_precision_stays() -> None:
    assert make(layout_of()).rotate(torch.randn(1, 2, 13, 8).bfloat16(), 0).dtype == torch.bfloat16


def test_a_network_turns_queries_and_keys_but_not_values() -> None:
    torch.manual_seed(0)
    net = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10, pos_embed="rope"))
    assert not [name for name in net.state_dict() if name.startswith("position")]
    seen = {}
    attention = net.blocks[2].attention
    attention.mix = lambda query, key, value, bias: seen.update(q=query, k=key, v=value) or value
    tokens = torch.randn(2, 17, 64)
    attention(tokens, net.position, 2)
    query, key, value = attention.qkv(tokens).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
    assert torch.equal(seen["q"], net.position.rotate(query, 2))
    assert torch.equal(seen["k"], net.position.rotate(key, 2))
    assert torch.equal(seen["v"], value)


def test_heads_that_have_no_quarters_are_refused() -> None:
    with pytest.raises(ValueError, match="rope quarters the width of a head, and 6 will not do"):
        Rope(layout_of(head_width=6), "stem")
    assert angles(layout_of(head_width=4)).shape == (13, 2)
