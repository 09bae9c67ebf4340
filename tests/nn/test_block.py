"""One layer against the paper's two equations written out, and where dropout sits."""

import pytest
import torch
from torch import nn

from vitexp.nn.attention import Full
from vitexp.nn.block import Block
from vitexp.nn.init import initialise
from vitexp.nn.mlp import dropout_or_nothing
from vitexp.nn.pos_embed import POSITIONS, Layout

POSITION = POSITIONS["none"](Layout(grid=(2, 3), prefix=0, width=8, heads=2, depth=1), "stem")


def make(dropout: float) -> Block:
    block = Block(Full(8, 2), 8, 16, dropout)
    initialise(block, 0)
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def norm(x: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


def test_equations_two_and_three() -> None:
    # Near-constant tokens, so that the epsilon of the norm shows.
    block, tokens = make(0.0), 1e-3 * torch.randn(2, 6, 8)
    middle = tokens + block.attention(norm(tokens, block.norm1), POSITION, 0)
    inner = norm(middle, block.norm2) @ block.mlp.fc1.weight.t() + block.mlp.fc1.bias
    gelu = inner * 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
    expected = middle + gelu @ block.mlp.fc2.weight.t() + block.mlp.fc2.bias
    torch.testing.assert_close(block(tokens, POSITION, 0), expected, rtol=1e-5, atol=1e-5)


def test_dropout_after_attention_and_after_both_dense_layers() -> None:
    assert isinstance(dropout_or_nothing(0.0), nn.Identity)
    block, seen = make(0.5), []
    for module in block.modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_hook(lambda _module, inputs, _out: seen.append(tuple(inputs[0].shape)))
    block(torch.randn(2, 6, 8), POSITION, 0)
    assert seen == [(2, 6, 8), (2, 6, 16), (2, 6, 8)]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_rests_in_evaluation(rate: float) -> None:
    tokens = torch.randn(2, 6, 8)
    assert torch.equal(make(rate).eval()(tokens, POSITION, 0), make(0.0)(tokens, POSITION, 0))
