"""Positions as logits that depend on where two patches lie to each other: by distance, or by rows and columns apart.

The prefix has no place, so nothing is added where it asks or is asked. The ViT paper does not have these kinds.
"""

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from vitexp.nn.init import Rule, normal
from vitexp.nn.pos_embed import Offsets, skew
from vitexp.nn.position import Layout, Position, Tables
from vitexp.nn.table import part


@part("pos_embed", "alibi", label="ALiBi", about="a fixed penalty that grows with the distance")
class Alibi(Position):
    """Each head takes its own slope times the distance of two patches, in steps of the grid, from their logit.

    Nothing is learned. Source: "Train Short, Test Long" (Press et al., 2022), whose slopes are kept; in two dimensions
    the distance is Euclidean, as in CROMA (Fuller et al., 2023).
    """

    refused: ClassVar[dict[str, str]] = dict.fromkeys(
        ("every", "shared"), "its penalty acts in every layer already, by the same slopes"
    )

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        self.register_buffer("penalty", torch.empty(layout.heads, layout.tokens, layout.tokens), persistent=False)
        self.init_rules: dict[str, Rule] = {"penalty": self._fill}

    def bias(self, query: Tensor, layer: int) -> Tensor:
        """The penalty, below 0."""
        return self.get_buffer("penalty").to(query.dtype).expand(len(query), -1, -1, -1)

    def _fill(self, penalty: Tensor, generator: Generator) -> None:
        prefix, places = self.layout.prefix, torch.cartesian_prod(*map(torch.arange, self.layout.grid)).double()
        apart = (places[:, None] - places).norm(dim=-1)
        steep = torch.tensor(slopes(self.layout.heads), dtype=torch.float64)
        penalty.zero_()[:, prefix:, prefix:] = -steep[:, None, None] * apart


def slopes(heads: int) -> list[float]:
    """One per head: 2^(-8 / n), its square and so on for n heads, a power of 2; for other numbers those of the power
    below it, and every second one of the power above.

    >>> slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 2 ** int(math.log2(heads))
    found = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    return found + [2 ** (-8 * head / (2 * power)) for head in range(1, 2 * (heads - power), 2)]


@part(
    "pos_embed", "relative2d", label="relative, 2-D", about="learned vectors per rows and columns apart, in attention"
)
class Relative2d(Offsets):
    """A learned vector per offset in rows and one per offset in columns, each of width K / 2, concatenated.

    Their product with the content query is added to the content logits: with attention local this is stand-alone local
    attention. As for `relative`, and where the source is silent: the product is scaled by 1 / sqrt(K), the heads of a
    layer share one table, vectors start normal with std 1 / sqrt(K) unless pos_std is given. `at`: stem = a table per
    layer; shared = one for all. Not beside a class token, which alone is read in the last layer and asks for no offset.
    Source: "Stand-Alone Self-Attention in Vision Models" (Ramachandran et al., 2019).
    """

    patches_alone = True

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        if layout.head_width % 2:
            raise ValueError(
                f"pos_embed relative2d halves the width of a head, and {layout.head_width} is odd: use another arch or "
                "pos_embed"
            )
        copies, half, (rows, columns) = self._copies(layout, at), layout.head_width // 2, layout.grid
        self.rows = Tables(copies, 2 * rows - 1, half, normal(self.std))
        self.columns = Tables(copies, 2 * columns - 1, half, normal(self.std))
        self.scale = 1 / math.sqrt(layout.head_width)

    def bias(self, query: Tensor, layer: int) -> Tensor:
        """The scaled product of each query with the vectors of each key's offset; 0 for the prefix."""
        copy, prefix = 0 if self.at == "shared" else layer, self.layout.prefix
        for_row, for_column = (query[:, :, prefix:] * self.scale).unflatten(2, self.layout.grid).chunk(2, dim=-1)
        by_row = skew((for_row @ self.rows[copy].t()).transpose(2, 3)).transpose(2, 3)  # (B, H, row, column, key's row)
        by_column = skew(for_column @ self.columns[copy].t())
        both = by_row[..., None] + by_column[..., None, :]
        return F.pad(both.flatten(-2).flatten(2, 3), (prefix, 0, prefix, 0))

    @classmethod
    def macs(cls, layout: Layout, pairs: int, *, as_computed: bool = False) -> int:
        """A product of width K / 2 per head, patch and row or column, also those that a window hides; the kernel
        computes every offset, also those to no patch."""
        rows, columns = layout.grid
        offsets = 2 * rows - 1 + 2 * columns - 1 if as_computed else rows + columns
        return layout.patches * offsets * (layout.width // 2)

    @classmethod
    def count_parameters(cls, layout: Layout, at: str) -> int:
        """2 * rows - 1 and 2 * columns - 1 vectors of width K / 2, per copy."""
        return cls._copies(layout, at) * (2 * sum(layout.grid) - 2) * (layout.head_width // 2)
