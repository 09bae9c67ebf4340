"""Positions by offset: ALiBi's slopes and distances, and stand-alone local attention, each by hand in NumPy."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from vitexp.nn.attention import Local
from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.pos_offset import Alibi, Relative2d, slopes
from vitexp.nn.position import Layout, Position


def make(
    kind: type[Position], grid: tuple[int, int] = (3, 4), prefix: int = 1, heads: int = 2, at: str = "stem"
) -> Position:
    position = kind(Layout(grid=grid, prefix=prefix, width=8 * heads, heads=heads, depth=2), at)
    initialise(position, 0)
    return position


def places(grid: tuple[int, int]) -> list[tuple[int, int]]:
    return list(itertools.product(range(grid[0]), range(grid[1])))


def test_slopes_are_those_of_the_source() -> None:
    """Press et al.: for 8 heads 1/2 to 1/256; their code for other numbers interleaves, as for the 12 of B/16."""
    assert slopes(8) == [1 / 2**head for head in range(1, 9)]
    assert slopes(16)[:4] == [2**-0.5, 2**-1, 2**-1.5, 2**-2]
    assert slopes(12) == [*slopes(8), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert slopes(3) == [2**-4, 2**-8, 2**-2]
    assert slopes(1) == [2**-8]


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (5, 2)])
def test_alibi_is_slope_times_distance(grid: tuple[int, int], prefix: int) -> None:
    found = make(Alibi, grid, prefix, heads=4).bias(torch.randn(2, 4, prefix + grid[0] * grid[1], 8), 1)
    assert found is not None
    expected = np.zeros(found.shape)
    for (q, (r, c)), (k, (s, d)) in itertools.product(enumerate(places(grid)), repeat=2):
        for head in range(4):
            expected[:, head, prefix + q, prefix + k] = -(4.0 ** -(head + 1)) * np.hypot(r - s, c - d)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (1, 5), (4, 2)])
def test_relative2d_is_the_query_times_both_offset_vectors(grid: tuple[int, int], prefix: int) -> None:
    position, query = make(Relative2d, grid, prefix), torch.randn(2, 2, prefix + grid[0] * grid[1], 8)
    for layer in range(2):
        expected = torch.zeros(2, 2, query.shape[2], query.shape[2])
        for (q, (r, c)), (k, (s, d)) in itertools.product(enumerate(places(grid)), repeat=2):
            vector = torch.cat(
                [position.rows[layer][s - r + grid[0] - 1], position.columns[layer][d - c + grid[1] - 1]]
            )
            expected[:, :, prefix + q, prefix + k] = query[:, :, prefix + q] @ vector / 8**0.5
        torch.testing.assert_close(position.bias(query, layer), expected)


def test_relative2d_shares_layers_where_asked() -> None:
    own, shared, query = make(Relative2d), make(Relative2d, at="shared"), torch.randn(1, 2, 13, 8)
    assert torch.equal(shared.bias(query, 0), shared.bias(query, 1))
    assert not torch.equal(own.bias(query, 0), own.bias(query, 1))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("window", [3, 5])
def test_stand_alone_local_attention_by_hand(window: int) -> None:
    """Ramachandran et al., section 3.1: each pixel, each head, over its own neighbourhood; logits over sqrt(K)."""
    grid, layout = (4, 5), Layout(grid=(4, 5), prefix=0, width=16, heads=2, depth=2)
    attention, position = Local(16, 2, layout, window), make(Relative2d, grid, 0)
    initialise(attention, 0)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(1, 20, 16)
    state = {name: value.numpy().astype(np.float64) for name, value in attention.state_dict().items()}
    rows, columns = (table[1].detach().numpy().astype(np.float64) for table in (position.rows, position.columns))
    query, key, value = np.split(tokens[0].numpy() @ state["qkv.weight"].T + state["qkv.bias"], 3, axis=1)
    mixed = np.zeros((20, 16))
    for i, j in places(grid):
        near = [(a, b) for a, b in places(grid) if max(abs(a - i), abs(b - j)) <= window // 2]
        for head in (slice(0, 8), slice(8, 16)):
            q = query[5 * i + j, head]
            logits = [
                q @ (key[5 * a + b, head] + np.concatenate([rows[a - i + 3], columns[b - j + 4]])) for a, b in near
            ]
            weights = softmax(np.array(logits) / np.sqrt(8))
            mixed[5 * i + j, head] = sum(w * value[5 * a + b, head] for w, (a, b) in zip(weights, near, strict=True))
    expected = mixed @ state["out.weight"].T + state["out.bias"]
    np.testing.assert_allclose(attention(tokens, position, 1)[0].detach().numpy(), expected, atol=1e-5)


def test_a_head_that_has_no_halves_is_refused() -> None:
    with pytest.raises(ValueError, match="relative2d halves the width of a head, and 3 is odd"):
        POSITIONS["relative2d"](Layout(grid=(2, 2), prefix=0, width=6, heads=2, depth=1), "stem")
