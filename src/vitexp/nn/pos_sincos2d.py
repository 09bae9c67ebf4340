"""Fixed sines and cosines of row and column, added to the tokens: positions without a learned value.

Source: "Better plain ViT baselines for ImageNet-1k" (2022) and its code; the ViT paper does not have this kind.
"""

from typing import ClassVar

import torch
from torch import Generator, Tensor

from vitexp.nn.init import Rule
from vitexp.nn.position import Layout, PosAt, Position

BASE = 10_000


class SinCos2d(Position):
    """A quarter of the width each: sin and cos of the column (x), sin and cos of the row (y).

    Frequency j of n = D / 4 is BASE^(-j / (n - 1)), so that the first is 1 and the last 1 / BASE. The prefix gets
    zeros, as the original adds its table before it prepends anything. `at`: stem = once; shared = before every layer.
    """

    refused: ClassVar[dict[str, str]] = {"every": "its table is fixed, so that a table for each layer is one for all"}

    def __init__(self, layout: Layout, at: PosAt) -> None:
        super().__init__(layout, at)
        if layout.width % 4 or layout.width < 8:
            raise ValueError(
                f"pos_embed sincos2d quarters the width, at least 8, and {layout.width} will not do: use another arch "
                "or pos_embed"
            )
        self.register_buffer("fixed", torch.empty(layout.tokens, layout.width), persistent=False)
        self.init_rules: dict[str, Rule] = {"fixed": self._fill}

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """Adds the table; `stem` means the first layer only."""
        return tokens if layer and self.at == "stem" else tokens + self.get_buffer("fixed").to(tokens.dtype)

    def _fill(self, table: Tensor, generator: Generator) -> None:
        table.copy_(torch.cat([table.new_zeros(self.layout.prefix, self.layout.width), sincos2d(self.layout)]))


def sincos2d(layout: Layout) -> Tensor:
    """The table of the patches, in fp32. Shapes: (N, D)."""
    bands = layout.width // 4
    frequencies = BASE ** (-torch.arange(bands, dtype=torch.float64) / (bands - 1))
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in layout.grid)
    y = (rows[:, None] * frequencies)[:, None].expand(-1, len(columns), -1)
    x = (columns[:, None] * frequencies)[None].expand(len(rows), -1, -1)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(0, 1).float()
