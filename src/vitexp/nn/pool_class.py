"""Class attention: a class token that joins after the encoder, in two layers where it alone asks.

Source: "Going deeper with Image Transformers" (Touvron et al., 2021), CaiT.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from vitexp.nn.init import Linear, Rule, each_of, normal, xavier_uniform
from vitexp.nn.mlp import Mlp
from vitexp.nn.norm import NORM_EPS
from vitexp.nn.pool import Map, Pool, gathered
from vitexp.nn.position import Layout
from vitexp.nn.table import part

LAYERS = 2


class ClassAttention(nn.Module):
    """The first token attends to every token, itself too."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width, weight=each_of(2, xavier_uniform))
        self.out = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, 1 + N, D) -> (B, 1, D)."""
        out: Tensor = self.out(gathered(self.q(tokens[:, :1]), self.kv(tokens), self.heads))
        return out


class ClassLayer(nn.Module):
    """Pre-norm, as a layer of the encoder, but the token alone changes; with layer scale where the encoder has it."""

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str) -> None:
        super().__init__()
        self.norm1: nn.Module = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = ClassAttention(width, heads)
        self.norm2: nn.Module = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_width, 0.0, gelu)
        self.scale1: nn.Module = nn.Identity()
        self.scale2: nn.Module = nn.Identity()

    def forward(self, token: Tensor, patches: Tensor) -> Tensor:
        """Shapes: (B, 1, D), (B, N, D) -> (B, 1, D)."""
        token = token + self.scale1(self.attention(self.norm1(torch.cat([token, patches], dim=1))))
        out: Tensor = token + self.scale2(self.mlp(self.norm2(token)))
        return out


@part("pool", "class_attention", label="class attention", about="a class token in two layers of its own at the end")
class ClassPool(Pool):
    """The patches pass the encoder alone; two more layers let a learned token look at them, and it is normed and read.

    Norm and layer scale are those of the encoder; nothing is dropped out here, as in the original. It starts the token
    at std 0.02.
    """

    has_mlp: ClassVar[bool] = True

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__(width, heads, mlp_width, gelu)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.layers = nn.ModuleList(ClassLayer(width, heads, mlp_width, gelu) for _ in range(LAYERS))
        self.init_rules: dict[str, Rule] = {"token": normal(0.02)}

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """Shapes: (B, N, D) -> (B, D)."""
        token = self.token.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            token = layer(token, tokens)
        read: Tensor = norm(token[:, 0])
        return read

    @classmethod
    def macs(cls, layout: Layout, mlp_width: int) -> int:
        """Each layer has the products of attention pooling, of one token more."""
        return LAYERS * (Map.macs(layout, mlp_width) + 2 * layout.width**2 + 2 * layout.width)
