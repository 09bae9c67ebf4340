"""Attention pooling: a learned probe looks at the tokens, and what it saw passes through an MLP.

Source: "Scaling Vision Transformers" (2021) and its code, where the head is called MAP; the ViT paper does not have it.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitexp.nn.attention import plain_attention
from vitexp.nn.block import NORM_EPS, Mlp
from vitexp.nn.init import Linear, Rule, each_of, xavier_uniform


class Map(nn.Module):
    """Multi-head attention of one probe over all normed tokens, then x + MLP(norm(x)). There is no prefix.

    The probe itself is not added to what it saw. Nothing is dropped out here, as in the original.
    """

    prefix: ClassVar[int] = 0

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.probe = nn.Parameter(torch.empty(1, width))
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width, weight=each_of(2, xavier_uniform))
        self.out = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_width, 0.0, gelu)
        self.init_rules: dict[str, Rule] = {"probe": xavier_uniform}

    def prepend(self, patches: Tensor) -> Tensor:
        """Nothing is put in front. Shapes: (B, N, D) -> (B, N, D)."""
        return patches

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """Shapes: (B, N, D) -> (B, D)."""
        key, value = self.kv(norm(tokens)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.q(self.probe).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        seen = plain_attention(query.expand(tokens.shape[0], -1, -1, -1), key, value, attn_mask=None, scale=self.scale)
        read = self.out(seen.flatten(1))
        out: Tensor = read + self.mlp(self.norm(read))
        return out
