"""The readout axis: which tokens a network reads its answer from. It owns the prefix tokens, which exist to be read.

A pool is built from the sizes of the encoder. To add one: write its class, its word in Pool, its row in POOLS.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vitexp.nn.attention import plain_attention
from vitexp.nn.block import NORM_EPS, Mlp
from vitexp.nn.init import Linear, Rule, each_of, xavier_uniform, zeros

# Attention pooling: a learned probe looks at the tokens, and what it saw passes through an MLP.
# Source: "Scaling Vision Transformers" (2021) and its code, where the head is called MAP; the ViT paper does not have
# it.


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


Pool = Literal["cls", "gap", "map"]


class Cls(nn.Module):
    """A learned token in front of the patches, read after the last layer. Source: ViT paper, section 3.1."""

    prefix: ClassVar[int] = 1

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.init_rules: dict[str, Rule] = {"cls": zeros}

    def prepend(self, patches: Tensor) -> Tensor:
        """Puts the prefix in front. Shapes: (B, N, D) -> (B, P + N, D)."""
        return torch.cat([self.cls.expand(patches.shape[0], -1, -1), patches], dim=1)

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """The normed cls token; a norm sees each token alone, so the others are spared. Shapes: (B, T, D) -> (B, D)."""
        read: Tensor = norm(tokens[:, 0])
        return read


class Gap(nn.Module):
    """The mean of all normed patches: the norm comes first. There is no prefix. Source: ViT paper, appendix D.3."""

    prefix: ClassVar[int] = 0

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__()

    def prepend(self, patches: Tensor) -> Tensor:
        """Nothing is put in front. Shapes: (B, N, D) -> (B, N, D)."""
        return patches

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """Normed, then averaged. Shapes: (B, N, D) -> (B, D)."""
        normed: Tensor = norm(tokens)
        return normed.mean(dim=1)


POOLS: dict[str, type[Cls] | type[Gap] | type[Map]] = {"cls": Cls, "gap": Gap, "map": Map}
