"""The readout axis: which tokens a network reads its answer from. It owns the prefix tokens, which exist to be read.

A pool is built from the sizes of the encoder. To add one: write its class with a `part` row above it.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitexp.nn.attention import plain_attention
from vitexp.nn.block import NORM_EPS, Mlp
from vitexp.nn.init import Linear, Rule, each_of, normal, xavier_uniform, zeros
from vitexp.nn.position import Layout
from vitexp.nn.table import Table, check_shape, part
from vitexp.own import WrongPart


class Pool(nn.Module):
    """The neutral answers: no prefix, nothing to multiply. Also the base of a pool of the user's own."""

    prefix: ClassVar[int] = 0
    has_mlp: ClassVar[bool] = False
    """Whether it has an MLP of its own: dense, GELU, dense beside any MLP of the layers"""

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__()
        self.width = width

    def prepend(self, patches: Tensor) -> Tensor:
        """The tokens that enter the encoder. Shapes: (B, N, D) -> (B, P + N, D)."""
        return patches

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """What the head reads. Shapes: (B, T, D) -> (B, D)."""
        raise NotImplementedError

    @classmethod
    def macs(cls, layout: Layout, mlp_width: int) -> int:
        """Multiply-accumulates of reading."""
        return 0


@part("pool", "cls", label="class token", about="a class token")
class Cls(Pool):
    """A learned token in front of the patches, read after the last layer. Source: ViT paper, section 3.1."""

    prefix: ClassVar[int] = 1

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__(width, heads, mlp_width, gelu)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.init_rules: dict[str, Rule] = {"cls": zeros}

    def prepend(self, patches: Tensor) -> Tensor:
        """Puts the prefix in front. Shapes: (B, N, D) -> (B, P + N, D)."""
        return torch.cat([self.cls.expand(patches.shape[0], -1, -1), patches], dim=1)

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """The normed cls token; a norm sees each token alone, so the others are spared. Shapes: (B, T, D) -> (B, D)."""
        read: Tensor = norm(tokens[:, 0])
        return read


@part("pool", "gap", label="global average pooling", about="the mean over patches")
class Gap(Pool):
    """The mean of all normed patches: the norm comes first. There is no prefix. Source: ViT paper, appendix D.3."""

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """Normed, then averaged. Shapes: (B, N, D) -> (B, D)."""
        normed: Tensor = norm(tokens)
        return normed.mean(dim=1)


@part("pool", "seqpool", label="sequence pooling", about="the mean over patches, weighted by a learned score of each")
class SeqPool(Pool):
    """The mean of all normed patches with the softmax of their products with one learned vector as weights.

    The source adds a bias to the products, which a softmax does not see; it is left out. The vector starts as there.
    Source: "Escaping the Big Data Paradigm with Compact Transformers" (Hassani et al., 2021).
    """

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__(width, heads, mlp_width, gelu)
        self.score = nn.Parameter(torch.empty(1, width))
        self.init_rules: dict[str, Rule] = {"score": normal(0.02)}

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """Shapes: (B, N, D) -> (B, D)."""
        normed = norm(tokens)
        query = self.score.expand(tokens.shape[0], -1, -1)
        return plain_attention(query, normed, normed, attn_mask=None, scale=1)[:, 0]

    @classmethod
    def macs(cls, layout: Layout, mlp_width: int) -> int:
        """A product and a share of each token."""
        return 2 * layout.tokens * layout.width


# Attention pooling: a learned probe looks at the tokens, and what it saw passes through an MLP.
# Source: "Scaling Vision Transformers" (2021) and its code, where the head is called MAP; the ViT paper does not have
# it.


@part("pool", "map", label="attention pooling", about="attention pooling by a learned probe")
class Map(Pool):
    """Multi-head attention of one probe over all normed tokens, then x + MLP(norm(x)). There is no prefix.

    The probe itself is not added to what it saw. Nothing is dropped out here, as in the original.
    """

    has_mlp: ClassVar[bool] = True

    def __init__(self, width: int, heads: int, mlp_width: int, gelu: str = "tanh") -> None:
        super().__init__(width, heads, mlp_width, gelu)
        self.heads = heads
        self.probe = nn.Parameter(torch.empty(1, width))
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width, weight=each_of(2, xavier_uniform))
        self.out = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_width, 0.0, gelu)
        self.init_rules: dict[str, Rule] = {"probe": xavier_uniform}

    def read(self, tokens: Tensor, norm: nn.Module) -> Tensor:
        """Shapes: (B, N, D) -> (B, D)."""
        query = self.q(self.probe).expand(tokens.shape[0], 1, -1)
        read = self.out(gathered(query, self.kv(norm(tokens)), self.heads)[:, 0])
        out: Tensor = read + self.mlp(self.norm(read))
        return out

    @classmethod
    def macs(cls, layout: Layout, mlp_width: int) -> int:
        """One query, keys and values of all tokens, an output, and an MLP over one vector."""
        width = layout.width
        return 2 * width**2 + 2 * layout.tokens * width**2 + 2 * layout.tokens * width + 2 * width * mlp_width


def gathered(query: Tensor, key_value: Tensor, heads: int) -> Tensor:
    """What a few queries see of all tokens. Shapes: (B, Q, D), (B, T, 2 D) -> (B, Q, D)."""
    key, value = key_value.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    query = query.unflatten(-1, (heads, -1)).transpose(1, 2)
    seen = plain_attention(query, key, value, attn_mask=None, scale=1 / math.sqrt(query.shape[-1]))
    return seen.transpose(1, 2).flatten(2)


def check_pool(pool: Pool, what: str, patches: int) -> None:
    """Raises: ValueError for a pool of the user's own that changes shapes, or whose class does not say its prefix."""
    shape, prefix = (1, patches, pool.width), type(pool).prefix
    if pool.prefix != prefix:
        raise WrongPart(f"{what} has prefix {pool.prefix}, and its class {prefix}; write prefix into the class alone")
    tokens = pool.prepend(torch.zeros(shape))
    check_shape(f"{what}: prepend()", tokens, (1, prefix + patches, pool.width))
    check_shape(f"{what}: read()", pool.read(tokens, nn.LayerNorm(pool.width)), (1, pool.width))


POOLS: Table[type[Pool]] = Table("pool", Pool, one_of=("read",), arguments=3, check=check_pool, plain="gap")
