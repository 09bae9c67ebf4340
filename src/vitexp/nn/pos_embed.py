"""The position axis: what tells the encoder where a patch was, and at which layers.

The seam. A position is built from a Layout and from `at`, and answers two questions, both with a neutral answer: `add`
returns the tokens that enter a layer, `bias` returns logits to add before that layer's softmax. Nothing else in the
network knows which variant is there. To add one: write its class, its word in PosEmbed, its row in POSITIONS.

Source: ViT paper, appendix D.4 and Table 8.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from vitexp.nn.init import Rule, normal

PosEmbed = Literal["none", "1d", "2d", "relative"]
PosAt = Literal["stem", "every", "shared"]

TABLE_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tokens lie. They run prefix first, then the grid (rows, columns) in raster order."""

    grid: tuple[int, int]
    prefix: int
    width: int
    heads: int
    depth: int

    def __post_init__(self) -> None:
        if min(self.grid) < 1:
            raise ValueError(f"grid {self.grid} is empty: rows and columns must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}: choose an arch where they do")

    @property
    def patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """T = P + N."""
        return self.prefix + self.patches

    @property
    def head_width(self) -> int:
        """K = D / H."""
        return self.width // self.heads


class Tables(nn.ParameterList):
    """The learned tables of one kind, one per copy, all of the same shape and the same rule."""

    def __init__(self, copies: int, rows: int, width: int, rule: Rule) -> None:
        super().__init__(nn.Parameter(torch.empty(rows, width)) for _ in range(copies if rows else 0))
        self.init_rules: dict[str, Rule] = {str(copy): rule for copy in range(len(self))}


class Position(nn.Module):
    """The neutral answers. `refused` says which places are errors for a variant, and why."""

    refused: ClassVar[dict[str, str]] = {}

    def __init__(self, layout: Layout, at: PosAt) -> None:
        super().__init__()
        self.layout, self.at = layout, at

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """The tokens that enter a layer. Shapes: (B, T, D) -> (B, T, D)."""
        return tokens

    def bias(self, query: Tensor, layer: int) -> Tensor | None:
        """Logits to add to the scaled content logits of a layer. Shapes: (B, H, T, K) -> (B, H, T, T)."""
        return None

    @classmethod
    def count_parameters(cls, layout: Layout, at: PosAt) -> int:
        """The exact number of learned values, in closed form."""
        return 0


class None_(Position):
    """No position: patches are a set. The cls token is there, and differs from patches by its own vector alone."""

    refused: ClassVar[dict[str, str]] = dict.fromkeys(("every", "shared"), "there is no table that could be added")


class _Additive(Position):
    """A table added to the tokens: after the stem; before each layer, each with its own; or one before all layers."""

    @property
    def copies(self) -> int:
        """How many tables are learned."""
        return self._copies(self.layout, self.at)

    @staticmethod
    def _copies(layout: Layout, at: PosAt) -> int:
        return layout.depth if at == "every" else 1

    def table(self, copy: int) -> Tensor:
        """One table. Shapes: (T, D)."""
        raise NotImplementedError

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """Adds the table of this layer; `stem` means the first layer only."""
        if layer and self.at == "stem":
            return tokens
        return tokens + self.table(layer if self.at == "every" else 0)


class OneD(_Additive):
    """One learned vector per index of the raster sequence; the cls token is index 0 and has its own row."""

    def __init__(self, layout: Layout, at: PosAt) -> None:
        super().__init__(layout, at)
        self.tables = Tables(self.copies, layout.tokens, layout.width, normal(TABLE_STD))

    def table(self, copy: int) -> Tensor:
        """Shapes: (T, D)."""
        return self.tables[copy]

    @classmethod
    def count_parameters(cls, layout: Layout, at: PosAt) -> int:
        """T vectors of width D, per copy."""
        return cls._copies(layout, at) * layout.tokens * layout.width


class TwoD(_Additive):
    """A vector per column and one per row, each of width D / 2, concatenated with the column (x) first.

    The paper does not say what the cls token gets; here it has a vector of width D that is neither row nor column.
    """

    def __init__(self, layout: Layout, at: PosAt) -> None:
        super().__init__(layout, at)
        if layout.width % 2:
            raise ValueError(f"pos_embed 2d halves the width, and {layout.width} is odd: use another arch or pos_embed")
        (rows, columns), half, rule = layout.grid, layout.width // 2, normal(TABLE_STD)
        self.prefix = Tables(self.copies, layout.prefix, layout.width, rule)
        self.x = Tables(self.copies, columns, half, rule)
        self.y = Tables(self.copies, rows, half, rule)

    def table(self, copy: int) -> Tensor:
        """Shapes: (T, D)."""
        rows, columns = self.layout.grid
        x = self.x[copy].expand(rows, columns, -1)
        y = self.y[copy][:, None].expand(rows, columns, -1)
        grid = torch.cat([x, y], dim=-1).flatten(0, 1)
        return torch.cat([self.prefix[copy], grid]) if self.layout.prefix else grid

    @classmethod
    def count_parameters(cls, layout: Layout, at: PosAt) -> int:
        """P vectors of width D, rows + columns of half that, per copy."""
        return cls._copies(layout, at) * (layout.prefix * layout.width + sum(layout.grid) * (layout.width // 2))


class Relative(Position):
    """One-dimensional relative attention: a learned vector per offset, key index - query index, of the raster sequence.

    Its product with the content query is added to the content logits. The sequence includes the prefix, so the cls
    token is index 0 and takes part like any patch. The heads of a layer share one table of 2T - 1 vectors of width K.
    Chosen here, because the paper is silent: the product is scaled by 1 / sqrt(K) like the content logits, values are
    untouched, and vectors start normal with std 1 / sqrt(K), so that these logits start at std 1 / sqrt(K) for unit
    queries: the same as in the co-author's axial code, which has std 1 / K and no scaling.
    `at`: stem = a table per layer, as relative attention has no other place; shared = one table for all layers.
    """

    refused: ClassVar[dict[str, str]] = {"every": "relative positions act in every layer already, with a table each"}

    def __init__(self, layout: Layout, at: PosAt) -> None:
        super().__init__(layout, at)
        rule = normal(1 / math.sqrt(layout.head_width))
        self.offsets = Tables(self._copies(layout, at), 2 * layout.tokens - 1, layout.head_width, rule)
        self.scale = 1 / math.sqrt(layout.head_width)

    @staticmethod
    def _copies(layout: Layout, at: PosAt) -> int:
        return 1 if at == "shared" else layout.depth

    def bias(self, query: Tensor, layer: int) -> Tensor:
        """The scaled product of each query with the vector of each key's offset."""
        offsets = self.offsets[0 if self.at == "shared" else layer]
        # The small table is scaled, not the large product.
        return skew(query @ (offsets * self.scale).t())

    @classmethod
    def count_parameters(cls, layout: Layout, at: PosAt) -> int:
        """2T - 1 vectors of width K, per copy."""
        return cls._copies(layout, at) * (2 * layout.tokens - 1) * layout.head_width


def skew(by_offset: Tensor) -> Tensor:
    """Turns columns that are offsets into columns that are keys: out[q, k] = in[q, k - q + T - 1].

    Row q starts one column further left than the row above, so a raster with rows one shorter lines the keys up: a
    view, where a gather would cost several times the attention itself in its backward pass.
    Shapes: (..., T, 2T - 1) -> (..., T, T).
    """
    length = by_offset.shape[-2]
    if length == 1:
        return by_offset
    raster = by_offset.flatten(-2)[..., length - 1 : -1]
    return raster.unflatten(-1, (length, 2 * length - 2))[..., :length]


POSITIONS: dict[str, type[Position]] = {"none": None_, "1d": OneD, "2d": TwoD, "relative": Relative}


def check_position(pos_embed: str, pos_at: str) -> None:
    """Raises: ValueError for an unknown word and for a pair in which pos_at has no effect."""
    if pos_embed not in POSITIONS:
        raise ValueError(f"pos_embed {pos_embed!r} is unknown; allowed are {', '.join(POSITIONS)}")
    if pos_at not in get_args(PosAt):
        raise ValueError(f"pos_at {pos_at!r} is unknown; allowed are {', '.join(get_args(PosAt))}")
    refused = POSITIONS[pos_embed].refused
    if pos_at in refused:
        allowed = " or ".join(at for at in get_args(PosAt) if at not in refused)
        why = refused[pos_at]
        raise ValueError(f"pos_at {pos_at} has no effect with pos_embed {pos_embed}: {why}; use pos_at {allowed}")
