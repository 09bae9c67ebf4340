"""Local attention: who can see whom, told by gradients, and equality with full attention under the same mask."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitexp.nn.attention import Local
from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.position import Layout
from vitexp.nn.vit import ViT, ViTConfig


def layout_of(grid: tuple[int, int], prefix: int) -> Layout:
    return Layout(grid=grid, prefix=prefix, width=16, heads=2, depth=2)


def make(layout: Layout, window: int) -> Local:
    attention = Local(16, 2, layout, window)
    initialise(attention, 0)
    return attention


def visible(layout: Layout, window: int) -> torch.Tensor:
    """By hand, token by token."""
    seen = torch.ones(layout.tokens, layout.tokens, dtype=torch.bool)
    columns = layout.grid[1]
    for query, key in itertools.product(range(layout.patches), repeat=2):
        apart = max(abs(query // columns - key // columns), abs(query % columns - key % columns))
        seen[layout.prefix + query, layout.prefix + key] = apart <= (window - 1) / 2
    return seen


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(("grid", "window"), [((4, 5), 3), ((4, 5), 1), ((1, 6), 5), ((5, 3), 5)])
def test_who_influences_whom(grid: tuple[int, int], window: int, prefix: int) -> None:
    layout = layout_of(grid, prefix)
    attention, position = make(layout, window), POSITIONS["none"](layout, "stem")

    def mixed(tokens: torch.Tensor) -> torch.Tensor:
        return attention(tokens, position, 0)[0].sum(-1)

    jacobian = torch.autograd.functional.jacobian(mixed, torch.randn(1, layout.tokens, 16))
    assert torch.equal(jacobian[:, 0].abs().amax(-1) > 0, visible(layout, window))


@pytest.mark.parametrize("word", ["none", "relative", "rope"])
def test_equals_torch_with_a_mask(word: str) -> None:
    layout = layout_of((4, 5), 1)
    attention, position = make(layout, 3), POSITIONS[word](layout, "stem")
    initialise(position, 0)
    nn.init.normal_(attention.qkv.bias)
    tokens = torch.randn(2, 21, 16)
    query, key, value = attention.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    bias = position.bias(query, 1)
    mask = visible(layout, 3) if bias is None else bias.masked_fill(~visible(layout, 3), float("-inf"))
    query, key = position.rotate(query, 1), position.rotate(key, 1)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attention(tokens, position, 1), attention.out(expected.transpose(1, 2).flatten(2)))


def test_a_wide_window_would_be_full_attention_and_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window 7 covers the whole grid \(4, 3\).*use attention full.*below 7"):
        make(layout_of((4, 3), 0), 7)
    with pytest.raises(ValueError, match=r"window 7 covers the whole grid \(4, 4\)"):
        ViT(ViTConfig(arch="micro/2", image_size=8, attention="local", window=7))


def test_layers_widen_what_a_patch_sees() -> None:
    net = ViT(ViTConfig(arch="micro/2", image_size=(2, 24), pool="gap", attention="local", window=3))
    images = torch.randn(1, 3, 2, 24, requires_grad=True)
    net.encode(images)[0, 0].sum().backward()
    assert images.grad is not None
    reached = images.grad.abs().amax(dim=(0, 1, 2)).view(12, 2).amax(1) > 0
    assert reached.tolist() == [True] * 5 + [False] * 7, "one patch further with each of four layers"
