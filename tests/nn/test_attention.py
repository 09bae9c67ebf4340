"""Attention against a loop over heads and queries, and against torch's own kernel."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.attention import Full, plain_attention
from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import POSITIONS, Layout, skew

LAYOUT = Layout(grid=(2, 2), prefix=1, width=12, heads=3, depth=2)


def loop(attention: Full, tokens: Tensor, offsets: Tensor | None) -> Tensor:
    """The paper's appendix A, one head and one query at a time."""
    (wq, wk, wv), (bq, bk, bv) = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    length = tokens.shape[1]
    rows = []
    for image in tokens:
        heads = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            query, key, value = (image @ w[part].t() + b[part] for w, b in ((wq, bq), (wk, bk), (wv, bv)))
            logits = query @ key.t()
            if offsets is not None:
                extra = [[query[q] @ offsets[k - q + length - 1] for k in range(length)] for q in range(length)]
                logits = logits + torch.stack([torch.stack(row) for row in extra])
            heads.append((logits / 2).softmax(-1) @ value)
        rows.append(torch.cat(heads, -1) @ attention.out.weight.t() + attention.out.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("word", ["none", "relative"])
def test_full_attention_by_hand(word: str) -> None:
    attention, position = Full(12, 3), POSITIONS[word](LAYOUT, "stem")
    initialise(attention, 0)
    initialise(position, 0)
    nn.init.normal_(attention.qkv.bias)
    nn.init.normal_(attention.out.bias)
    tokens = torch.randn(2, 5, 12)
    offsets = position.offsets[1] if word == "relative" else None
    torch.testing.assert_close(attention(tokens, position, 1), loop(attention, tokens, offsets))


@pytest.mark.parametrize("biased", [False, True])
def test_the_two_kernels_agree(biased: bool) -> None:
    query, key, value = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64)
    # A skewed view, as relative positions hand it over.
    bias = skew(torch.randn(2, 3, 5, 9, dtype=torch.float64)) if biased else None
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.3)
    torch.testing.assert_close(plain_attention(query, key, value, attn_mask=bias, scale=0.3), expected)


def test_softmax_of_bf16_is_taken_in_fp32() -> None:
    query, key = torch.randn(2, 2, 3, 40, 8).bfloat16()
    every = torch.eye(40).bfloat16().expand(2, 3, 40, 40)  # the values are then the probabilities
    found = plain_attention(query, key, every, attn_mask=None, scale=0.5)
    expected = torch.softmax((query * 0.5 @ key.transpose(-2, -1)).float(), dim=-1).bfloat16()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
