"""The readout axis: which tokens a network reads its answer from. It owns the prefix tokens, which exist to be read.

A pool is built from the sizes of the encoder. To add one: write its class, its word in Pool, its row in POOLS.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vitexp.nn.init import Rule, zeros
from vitexp.nn.pool_map import Map

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
