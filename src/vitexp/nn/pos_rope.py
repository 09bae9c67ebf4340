"""Rotary positions in two dimensions: queries and keys are turned by angles that grow with row and column.

Source: "Rotary Position Embedding for Vision Transformer" (2024), its axial kind; the ViT paper does not have it.
"""

from typing import ClassVar

import torch
from torch import Generator, Tensor

from vitexp.nn.init import Rule
from vitexp.nn.position import Layout, PosAt, Position

# A grid has tens of places along a side where a text has thousands, hence not the usual 10,000.
BASE = 100


class Rope(Position):
    """Neighbouring pairs of a head's values turn: in the first half with the column (x), in the second with the row.

    Pair j of n = K / 4 turns by place * BASE^(-j / n). So the product of a query and a key depends, as far as places
    go, on their offset alone, in every layer and head alike. The prefix has no place and is not turned.
    """

    refused: ClassVar[dict[str, str]] = dict.fromkeys(
        ("every", "shared"), "rotary positions act in every layer already, by the same angles"
    )

    def __init__(self, layout: Layout, at: PosAt) -> None:
        super().__init__(layout, at)
        if layout.head_width % 4:
            raise ValueError(
                f"pos_embed rope quarters the width of a head, and {layout.head_width} will not do: use another arch "
                "or pos_embed"
            )
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(layout.tokens, layout.head_width // 2), persistent=False)
        self.init_rules: dict[str, Rule] = {"cos": self._fill_cos, "sin": self._fill_sin}

    def rotate(self, heads: Tensor, layer: int) -> Tensor:
        """Turns each pair by the angle of its token."""
        cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
        one, other = heads.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1).flatten(-2)
        return turned.to(heads.dtype)

    def _fill_cos(self, table: Tensor, generator: Generator) -> None:
        table.copy_(angles(self.layout).cos())

    def _fill_sin(self, table: Tensor, generator: Generator) -> None:
        table.copy_(angles(self.layout).sin())


def angles(layout: Layout) -> Tensor:
    """By how much the pairs of each token turn; the prefix by 0. Shapes: (T, K / 2)."""
    bands = layout.head_width // 4
    frequencies = BASE ** (-torch.arange(bands, dtype=torch.float64) / bands)
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in layout.grid)
    y = (rows[:, None] * frequencies)[:, None].expand(-1, len(columns), -1)
    x = (columns[:, None] * frequencies)[None].expand(len(rows), -1, -1)
    patches = torch.cat([x, y], dim=-1).flatten(0, 1)
    return torch.cat([patches.new_zeros(layout.prefix, 2 * bands), patches])
