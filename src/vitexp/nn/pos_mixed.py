"""Rotary positions whose frequencies are learned, and mix row and column.

Source: "Rotary Position Embedding for Vision Transformer" (Heo et al., 2024), its mixed kind; the ViT paper does not
have it.
"""

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor

from vitexp.nn.init import Rule
from vitexp.nn.pos_embed import turn
from vitexp.nn.position import Layout, Position, Tables
from vitexp.nn.table import part

BASE = 10


@part("pos_embed", "rope_mixed", label="rotary, learned", about="queries and keys turned by learned frequencies")
class RopeMixed(Position):
    """As `rope`, but each pair of each head turns by x * f + y * g, with two learned frequencies of its own.

    So a head can compare along any direction, not along rows and columns alone. In each head pair j of n = K / 4 starts
    with the frequency 10^(-j / n) along a direction drawn for that head, and pair n + j with the same across it. The
    prefix has no place and is not turned. `at`: stem = frequencies per layer, as in the source; shared = one set for
    all.
    """

    refused: ClassVar[dict[str, str]] = {"every": "rotary positions act in every layer already, with frequencies each"}

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        if layout.head_width % 4:
            raise ValueError(
                f"pos_embed rope_mixed quarters the width of a head, and {layout.head_width} will not do: use another "
                "arch or pos_embed"
            )
        copies = self._copies(layout, at)
        self.frequencies = Tables(copies, 2 * layout.heads, layout.head_width // 2, self._directions)
        self.register_buffer("places", torch.empty(layout.tokens, 2), persistent=False)
        self.init_rules: dict[str, Rule] = {"places": self._fill}

    @staticmethod
    def _copies(layout: Layout, at: str) -> int:
        return 1 if at == "shared" else layout.depth

    def rotate(self, heads: Tensor, layer: int) -> Tensor:
        """Turns each pair by the angle of its token and head."""
        x, y = self.frequencies[0 if self.at == "shared" else layer][:, None].chunk(2)
        column, row = self.get_buffer("places")[..., None].unbind(1)
        angles = column * x + row * y
        return turn(heads, angles.cos(), angles.sin())

    @classmethod
    def count_parameters(cls, layout: Layout, at: str) -> int:
        """Two frequencies per pair of a head, K / 2 pairs, per copy."""
        return cls._copies(layout, at) * layout.width

    def _directions(self, frequencies: Tensor, generator: Generator) -> None:
        """Rows are those along x of each head, then those along y. Shapes: (2 H, K / 2)."""
        bands = self.layout.head_width // 4
        sizes = BASE ** (-torch.arange(bands) / bands)
        direction = torch.rand(self.layout.heads, 1, generator=generator) * 2 * math.pi
        across = direction + math.pi / 2
        along_x = torch.cat([sizes * direction.cos(), sizes * across.cos()], dim=1)
        frequencies.copy_(torch.cat([along_x, torch.cat([sizes * direction.sin(), sizes * across.sin()], dim=1)]))

    def _fill(self, places: Tensor, generator: Generator) -> None:
        rows, columns = (torch.arange(length) for length in self.layout.grid)
        places.zero_()[self.layout.prefix :] = torch.cartesian_prod(rows, columns).flip(1)
