"""Sparse attention: who sees whom, against the paper's index sets, and how far two layers reach."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitexp.nn.attention_sparse import Fixed, Strided
from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.position import Layout
from vitexp.nn.vit import ViT, ViTConfig

LAYOUT = Layout(grid=(4, 5), prefix=0, width=16, heads=2, depth=2)
KINDS = {"strided": Strided, "fixed": Fixed}


def sets(word: str, patches: int, stride: int) -> np.ndarray:
    """A(1) and A(2) of section 4.3 of the paper and its code, both for one head, and not of what lies before alone."""
    seen = np.zeros((patches, patches), bool)
    for i, j in np.ndindex(patches, patches):
        late, early = max(i, j), min(i, j)
        if word == "strided":
            seen[i, j] = late < early + stride or (late - early) % stride == 0
        else:
            seen[i, j] = j // stride == i // stride or j % stride == stride - 1
    return seen


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("word", KINDS)
def test_who_influences_whom_and_how_many_they_are(word: str, prefix: int) -> None:
    layout = replace(LAYOUT, prefix=prefix)
    attention, position = KINDS[word](16, 2, layout, 3), POSITIONS["none"](layout, "stem")
    initialise(attention, 0)
    jacobian = torch.autograd.functional.jacobian(
        lambda tokens: attention(tokens, position, 0)[0].sum(-1), torch.randn(1, layout.tokens, 16)
    )
    expected = np.pad(sets(word, 20, 5), ((prefix, 0), (prefix, 0)), constant_values=True)
    assert ((jacobian[:, 0].abs().amax(-1) > 0).numpy() == expected).all()
    assert KINDS[word].pairs(layout, 3) == expected.sum()
    assert KINDS[word].pairs(layout, 3, as_computed=True) == layout.tokens**2


@pytest.mark.parametrize("word", KINDS)
@pytest.mark.parametrize("pos_embed", ["none", "relative", "rope"])
def test_equals_torch_with_a_mask(word: str, pos_embed: str) -> None:
    layout = replace(LAYOUT, prefix=1)
    attention, position = KINDS[word](16, 2, layout, 3), POSITIONS[pos_embed](layout, "stem")
    initialise(attention, 0)
    initialise(position, 0)
    nn.init.normal_(attention.qkv.bias)
    tokens = torch.randn(2, 21, 16)
    query, key, value = attention.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    seen, bias = F.pad(torch.from_numpy(sets(word, 20, 5)), (1, 0, 1, 0), value=True), position.bias(query, 1)
    mask = seen if bias is None else bias.masked_fill(~seen, float("-inf"))
    query, key = position.rotate(query, 1), position.rotate(key, 1)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attention(tokens, position, 1), attention.out(mixed.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("word", KINDS)
def test_two_layers_reach_every_patch_and_one_does_not(word: str) -> None:
    seen = KINDS[word].seen(LAYOUT, 3).float()
    assert not seen.all()
    assert (seen @ seen).all()


@pytest.mark.parametrize("attention", KINDS)
def test_every_weight_starts_as_with_full_attention(attention: str) -> None:
    nets = []
    for word in ("full", attention):
        torch.manual_seed(0)
        nets.append(ViT(ViTConfig(arch="micro/2", image_size=8, attention=word)).state_dict())  # type: ignore[arg-type]
    assert nets[0].keys() == nets[1].keys()
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("size", [(2, 8), (8, 2)])
def test_a_single_line_would_be_full_attention_and_is_refused(attention: str, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"in the grid \(., .\) every patch sees every other: use attention full"):
        ViT(ViTConfig(arch="micro/2", image_size=size, attention=attention))  # type: ignore[arg-type]
