"""Axial attention: who can see whom, told by gradients, and the two halves against torch's own attention."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitexp.nn.attention import AxialLayer, Column, Row
from vitexp.nn.block import Block
from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.position import Layout
from vitexp.nn.vit import ViT, ViTConfig

LAYOUT = Layout(grid=(3, 4), prefix=0, width=16, heads=2, depth=2)
POSITION = POSITIONS["none"](LAYOUT, "stem")
PLACES = torch.arange(12)
SAME_ROW = (PLACES[:, None] // 4) == (PLACES // 4)
SAME_COLUMN = (PLACES[:, None] % 4) == (PLACES % 4)


def seen_by(module: nn.Module) -> torch.Tensor:
    """Which token of the input reaches which token of the output."""
    initialise(module, 0)
    jacobian = torch.autograd.functional.jacobian(
        lambda tokens: module(tokens, POSITION, 0)[0].sum(-1), torch.randn(1, 12, 16)
    )
    return jacobian[:, 0].abs().amax(-1) > 0


def test_rows_columns_and_then_everyone() -> None:
    assert torch.equal(seen_by(Row(16, 2, LAYOUT)), SAME_ROW)
    assert torch.equal(seen_by(Column(16, 2, LAYOUT)), SAME_COLUMN)
    layer = AxialLayer(LAYOUT, 32, 0.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    assert seen_by(layer).all(), "rows, then columns, reach every patch from every other"


def test_the_row_comes_first() -> None:
    layer, rows = AxialLayer(LAYOUT, 32, 0.0), Block(Row(16, 2, LAYOUT), 16, 32, 0.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    rows.load_state_dict({name: value for name, value in layer.state_dict().items() if not name.startswith("column.")})
    tokens = torch.randn(1, 12, 16)
    expected = layer.column(rows(tokens, POSITION, 0), POSITION, 0)
    assert torch.equal(layer(tokens, POSITION, 0), expected)
    assert not torch.allclose(rows(layer.column(tokens, POSITION, 0), POSITION, 0), expected, atol=0.1)
    assert [type(block.attention) for block in (layer, layer.column)] == [Row, Column]


@pytest.mark.parametrize(("kind", "mask"), [(Row, SAME_ROW), (Column, SAME_COLUMN)])
@pytest.mark.parametrize("word", ["none", "rope"])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_an_axis_is_full_attention_under_a_mask(kind: type[Row], mask: torch.Tensor, word: str, prefix: int) -> None:
    """A prefix sees all, and is seen by all."""
    layout = replace(LAYOUT, prefix=prefix)
    attention, position = kind(16, 2, layout), POSITIONS[word](layout, "stem")
    initialise(attention, 0)
    initialise(position, 0)
    nn.init.normal_(attention.qkv.bias)
    tokens = torch.randn(2, prefix + 12, 16)
    query, key, value = attention.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    query, key = position.rotate(query, 0), position.rotate(key, 0)
    mask = F.pad(mask, (prefix, 0, prefix, 0), value=True)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attention(tokens, position, 0), attention.out(mixed.transpose(1, 2).flatten(2)))


def test_the_first_half_starts_as_a_full_layer_does() -> None:
    nets = []
    for attention in ("full", "axial"):
        torch.manual_seed(0)
        nets.append(ViT(ViTConfig(arch="micro/2", image_size=8, pool="gap", attention=attention)))  # type: ignore[arg-type]
    full, axial = (net.state_dict() for net in nets)
    assert all(torch.equal(axial[name], value) for name, value in full.items())
    extra = [name for name in axial if name not in full]
    assert {name.split(".")[2] for name in extra} == {"column"}
    assert len(extra) == 4 * 12


@torch.no_grad()
def test_none_is_blind_to_the_order_of_rows_and_of_columns_alone() -> None:
    torch.manual_seed(0)
    net = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10, pool="gap", attention="axial", pos_embed="none"))
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    grid = torch.arange(16).view(4, 4)
    tokens = torch.randn(1, 16, 64)

    def answer(order: torch.Tensor) -> torch.Tensor:
        hook = net.stem.register_forward_hook(lambda *_: tokens[:, order.flatten()])
        try:
            return net(torch.zeros(1, 3, 8, 8))
        finally:
            hook.remove()

    straight = answer(grid)
    torch.testing.assert_close(answer(grid[[2, 0, 3, 1]][:, [1, 3, 0, 2]]), straight, rtol=0, atol=1e-5)
    shuffled = grid.flatten()[torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    assert not torch.allclose(answer(shuffled), straight, atol=1e-3)
