"""Multi-head self-attention. Its calls are `attention(tokens, position, layer)`; a pattern is another `mix`."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Linear, each_of, xavier_uniform, zeros
from vitexp.nn.position import Position


class Full(nn.Module):
    """Every token attends to every token.

    The three projections are one matrix multiplication; rows of `qkv` are query, key, value, each head by head.
    Source: ViT paper, appendix A. No dropout on the probabilities (all of Google's configs have 0).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.qkv = Linear(width, 3 * width, weight=each_of(3, xavier_uniform), bias=zeros)
        self.out = Linear(width, width)

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = position.bias(query, layer)
        query, key = position.rotate(query, layer), position.rotate(key, layer)
        out: Tensor = self.out(self.mix(query, key, value, bias).transpose(1, 2).flatten(2))
        return out

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """What each query gathers. Shapes: (B, H, T, K) each, the bias (B, H, T, T) or none -> (B, H, T, K)."""
        attend = F.scaled_dot_product_attention if query.is_cuda else plain_attention
        return attend(query, key, value, attn_mask=bias, scale=self.scale)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, scale: float) -> Tensor:
    """Softmax attention written out: on a CPU as fast as the fused kernel in fp32 and several times faster in bf16.

    Shapes: (B, H, T, K) each, the mask (B, H, T, T) -> (B, H, T, K).
    """
    logits = (query * scale) @ key.transpose(-2, -1)
    if attn_mask is not None:
        logits = logits + attn_mask
    return torch.softmax(logits, dim=-1) @ value
