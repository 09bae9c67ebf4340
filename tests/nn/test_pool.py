"""The readout axis: what the prefix is, and which tokens are read."""

import pytest
import torch
from torch import nn

from vitexp.nn.init import initialise
from vitexp.nn.pool import POOLS


@pytest.mark.parametrize("word", POOLS)
def test_contract(word: str) -> None:
    pool = POOLS[word](8, 2, 16)
    initialise(pool, 0)
    patches, norm = torch.randn(2, 6, 8), nn.LayerNorm(8)
    tokens = pool.prepend(patches)
    assert tokens.shape == (2, pool.prefix + 6, 8)
    assert torch.equal(tokens[:, pool.prefix :], patches), "patches keep their order behind the prefix"
    assert pool.read(tokens, norm).shape == (2, 8)


def test_cls_reads_the_normed_first_token_alone() -> None:
    pool, norm, tokens = POOLS["cls"](8, 2, 16), nn.LayerNorm(8), torch.randn(2, 7, 8)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(pool.read(tokens, norm), norm(tokens)[:, 0])


def test_cls_is_the_same_for_every_image() -> None:
    pool = POOLS["cls"](8, 2, 16)
    nn.init.normal_(pool.cls)
    assert torch.equal(pool.prepend(torch.randn(3, 6, 8))[:, 0], pool.cls[0].expand(3, 8))


def test_gap_has_no_prefix_and_norms_before_the_mean() -> None:
    pool, norm, tokens = POOLS["gap"](8, 2, 16), nn.LayerNorm(8), 5 * torch.randn(2, 6, 8) + 3
    assert pool.prefix == 0
    assert not list(pool.parameters())
    assert pool.prepend(tokens) is tokens
    expected = torch.stack([norm(tokens[:, index]) for index in range(6)]).sum(0) / 6
    torch.testing.assert_close(pool.read(tokens, norm), expected)
    assert not torch.allclose(pool.read(tokens, norm), norm(tokens.mean(1)), atol=0.1)
