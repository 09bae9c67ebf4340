"""The position axis: what tells the encoder where a patch was, and at which layers.

To add one: write its class with a `part` row above it. First the kinds that the ViT paper compares (appendix D.4 and
Table 8), then later ones.
"""

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor

from vitexp import axes
from vitexp.nn.init import Rule, normal
from vitexp.nn.position import Layout, Position, Tables, check_position_shapes
from vitexp.nn.table import Table, part

TABLE_STD = 0.02


@part("pos_embed", "none", label="none", about="no positions")
class None_(Position):
    """No position: patches are a set. The cls token is there, and differs from patches by its own vector alone."""

    refused: ClassVar[dict[str, str]] = dict.fromkeys(("every", "shared"), "there is no table that could be added")


class _Additive(Position):
    """A table added to the tokens: after the stem; before each layer, each with its own; or one before all layers."""

    @classmethod
    def own_std(cls, head_width: int) -> float:
        """As in the paper's code."""
        return TABLE_STD

    @property
    def copies(self) -> int:
        """How many tables are learned."""
        return self._copies(self.layout, self.at)

    @staticmethod
    def _copies(layout: Layout, at: str) -> int:
        return layout.depth if at == "every" else 1

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """Adds the table of this layer; `stem` means the first layer only."""
        if layer and self.at == "stem":
            return tokens
        return tokens + self.table(layer if self.at == "every" else 0)

    def table(self, copy: int) -> Tensor:
        """One of its tables. Shapes: (T, D)."""
        raise NotImplementedError


@part("pos_embed", "1d", label="1-D", about="a learned vector per index of the raster sequence")
class OneD(_Additive):
    """One learned vector per index of the raster sequence; the cls token is index 0 and has its own row."""

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        self.tables = Tables(self.copies, layout.tokens, layout.width, normal(self.std))

    def table(self, copy: int) -> Tensor:
        """Shapes: (T, D)."""
        return self.tables[copy]

    @classmethod
    def count_parameters(cls, layout: Layout, at: str) -> int:
        """T vectors of width D, per copy."""
        return cls._copies(layout, at) * layout.tokens * layout.width


@part("pos_embed", "2d", label="2-D", about="learned vectors per row and per column")
class TwoD(_Additive):
    """A vector per column and one per row, each of width D / 2, concatenated with the column (x) first.

    The paper does not say what the cls token gets; here it has a vector of width D that is neither row nor column.
    """

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        if layout.width % 2:
            raise ValueError(f"pos_embed 2d halves the width, and {layout.width} is odd: use another arch or pos_embed")
        (rows, columns), half, rule = layout.grid, layout.width // 2, normal(self.std)
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
    def count_parameters(cls, layout: Layout, at: str) -> int:
        """P vectors of width D, rows + columns of half that, per copy."""
        return cls._copies(layout, at) * (layout.prefix * layout.width + sum(layout.grid) * (layout.width // 2))


class Offsets(Position):
    """Learned vectors of offsets, in every layer: a table for each, or with `shared` one for all."""

    refused: ClassVar[dict[str, str]] = {"every": "relative positions act in every layer already, with a table each"}

    @classmethod
    def own_std(cls, head_width: int) -> float:
        """1 / sqrt(K)."""
        return 1 / math.sqrt(head_width)

    @staticmethod
    def _copies(layout: Layout, at: str) -> int:
        return 1 if at == "shared" else layout.depth


@part("pos_embed", "relative", label="relative", about="a learned vector per offset, in the attention")
class Relative(Offsets):
    """One-dimensional relative attention: a learned vector per offset, key index - query index, of the raster sequence.

    Its product with the content query is added to the content logits. The sequence includes the prefix, so the cls
    token is index 0 and takes part like any patch. The heads of a layer share one table of 2T - 1 vectors of width K.
    Chosen here, because the paper is silent: the product is scaled by 1 / sqrt(K) like the content logits, values are
    untouched, and vectors start normal with std 1 / sqrt(K), unless pos_std is given, so that these logits start at
    std 1 / sqrt(K) for unit queries: the same as in the co-author's axial code, which has std 1 / K and no scaling.
    `at`: stem = a table per layer, as relative attention has no other place; shared = one table for all layers.
    """

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        rule = normal(self.std)
        self.offsets = Tables(self._copies(layout, at), 2 * layout.tokens - 1, layout.head_width, rule)
        self.scale = 1 / math.sqrt(layout.head_width)

    def bias(self, query: Tensor, layer: int) -> Tensor:
        """The scaled product of each query with the vector of each key's offset."""
        offsets = self.offsets[0 if self.at == "shared" else layer]
        # The small table is scaled, not the large product.
        return skew(query @ (offsets * self.scale).t())

    @classmethod
    def macs(cls, layout: Layout, pairs: int, *, as_computed: bool = False) -> int:
        """A product of width K per head and pair; the kernel computes every offset, also those to no token."""
        return (layout.tokens * (2 * layout.tokens - 1) if as_computed else pairs) * layout.width

    @classmethod
    def count_parameters(cls, layout: Layout, at: str) -> int:
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


# Fixed sines and cosines of row and column, added to the tokens: positions without a learned value.
# Source: "Better plain ViT baselines for ImageNet-1k" (2022) and its code; the ViT paper does not have this kind.

SINCOS_BASE = 10_000


@part("pos_embed", "sincos2d", label="fixed 2-D sines", about="fixed sines of row and column")
class SinCos2d(Position):
    """A quarter of the width each: sin and cos of the column (x), sin and cos of the row (y).

    Frequency j of n = D / 4 is 10,000^(-j / (n - 1)), so that the first is 1 and the last 1 / 10,000. The prefix gets
    zeros, as the original adds its table before it prepends anything. `at`: stem = once; shared = before every layer.
    """

    refused: ClassVar[dict[str, str]] = {"every": "its table is fixed, so that a table for each layer is one for all"}

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
        if layout.width % 4 or layout.width < 8:
            raise ValueError(
                f"pos_embed sincos2d quarters the width, at least 8, and {layout.width} will not do: use another arch "
                "or pos_embed"
            )
        self.register_buffer("fixed", torch.empty(layout.tokens, layout.width), persistent=False)
        self.init_rules: dict[str, Rule] = {"fixed": self._fill}

    def table(self, copy: int) -> Tensor:
        """Shapes: (T, D)."""
        return self.get_buffer("fixed")

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """Adds the table; `stem` means the first layer only."""
        return tokens if layer and self.at == "stem" else tokens + self.get_buffer("fixed").to(tokens.dtype)

    def _fill(self, table: Tensor, generator: Generator) -> None:
        table.copy_(torch.cat([table.new_zeros(self.layout.prefix, self.layout.width), sincos2d(self.layout)]))


def sincos2d(layout: Layout) -> Tensor:
    """The table of the patches, in fp32. Shapes: (N, D)."""
    bands = layout.width // 4
    frequencies = SINCOS_BASE ** (-torch.arange(bands, dtype=torch.float64) / (bands - 1))
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in layout.grid)
    y = (rows[:, None] * frequencies)[:, None].expand(-1, len(columns), -1)
    x = (columns[:, None] * frequencies)[None].expand(len(rows), -1, -1)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(0, 1).float()


# Rotary positions in two dimensions: queries and keys are turned by angles that grow with row and column.
# Source: "Rotary Position Embedding for Vision Transformer" (2024), its axial kind; the ViT paper does not have it.

# A grid has tens of places along a side where a text has thousands, hence not the usual 10,000.
ROPE_BASE = 100


@part("pos_embed", "rope", label="rotary", about="queries and keys turned by row and column")
class Rope(Position):
    """Neighbouring pairs of a head's values turn: in the first half with the column (x), in the second with the row.

    Pair j of n = K / 4 turns by place * 100^(-j / n). So the product of a query and a key depends, as far as places
    go, on their offset alone, in every layer and head alike. The prefix has no place and is not turned.
    """

    refused: ClassVar[dict[str, str]] = dict.fromkeys(
        ("every", "shared"), "rotary positions act in every layer already, by the same angles"
    )

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__(layout, at, std)
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
        return turn(heads, self.get_buffer("cos"), self.get_buffer("sin"))

    def _fill_cos(self, table: Tensor, generator: Generator) -> None:
        table.copy_(angles(self.layout).cos())

    def _fill_sin(self, table: Tensor, generator: Generator) -> None:
        table.copy_(angles(self.layout).sin())


def turn(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring pairs of values turned. Shapes: (B, H, T, K), twice (T, K / 2) or (H, T, K / 2) -> (B, H, T, K)."""
    one, other = heads.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1).flatten(-2)
    return turned.to(heads.dtype)


def angles(layout: Layout) -> Tensor:
    """By how much the pairs of each token turn; the prefix by 0. Shapes: (T, K / 2)."""
    bands = layout.head_width // 4
    frequencies = ROPE_BASE ** (-torch.arange(bands, dtype=torch.float64) / bands)
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in layout.grid)
    y = (rows[:, None] * frequencies)[:, None].expand(-1, len(columns), -1)
    x = (columns[:, None] * frequencies)[None].expand(len(rows), -1, -1)
    patches = torch.cat([x, y], dim=-1).flatten(0, 1)
    return torch.cat([patches.new_zeros(layout.prefix, 2 * bands), patches])


POSITIONS: Table[type[Position]] = Table(
    "pos_embed", Position, one_of=("add", "rotate", "bias"), arguments=2, check=check_position_shapes, plain="1d"
)


def check_position(pos_embed: str, pos_at: str, pos_std: float | None = None) -> None:
    """Raises: ValueError for an unknown word, an impossible pos_std, and a pair in which pos_at or it has no effect."""
    refused = POSITIONS[pos_embed].refused
    axes.check("pos_at", pos_at)
    if pos_at in refused:
        allowed = " or ".join(at for at in axes.values("pos_at") if at not in refused)
        why = refused[pos_at]
        raise ValueError(f"pos_at {pos_at} has no effect with pos_embed {pos_embed}: {why}; use pos_at {allowed}")
    if pos_std is not None and not POSITIONS[pos_embed].own_std(1):
        allowed = " or ".join(word for word, kind in POSITIONS.items() if kind.own_std(1))
        raise ValueError(
            f"pos_std {pos_std} has no effect with pos_embed {pos_embed}, which learns nothing that could start there; "
            f"leave it out, or use pos_embed {allowed}"
        )
    if pos_std is not None and not 0 <= pos_std < math.inf:
        raise ValueError(f"pos_std is {pos_std}, and must be a finite standard deviation, at least 0")
