"""The seam of the position axis: where tokens lie, and what a variant may answer.

A position is built from a Layout and from `at`, and answers three questions, all with a neutral answer: `add` returns
the tokens that enter a layer, `rotate` returns queries or keys as that layer compares them, `bias` returns logits to
add before its softmax. Nothing else in the network knows which variant is there.

Source: ViT paper, appendix D.4 and Table 8.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitexp.nn.init import Rule
from vitexp.nn.table import check_method, part, probe

part("pos_at", "stem", label="at the stem", about="once, after the stem")
part("pos_at", "every", label="every layer", about="before every layer, each with a table of its own")
part("pos_at", "shared", label="every layer, shared", about="before every layer, with one table for all")


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
    patches_alone: ClassVar[bool] = False
    """Whether it knows no class token, whose table of the last layer nobody would then read"""

    def __init__(self, layout: Layout, at: str, std: float | None = None) -> None:
        super().__init__()
        self.layout, self.at = layout, at
        self.std = self.own_std(layout.head_width) if std is None else std

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """The tokens that enter a layer. Shapes: (B, T, D) -> (B, T, D)."""
        return tokens

    def rotate(self, heads: Tensor, layer: int) -> Tensor:
        """Queries or keys as a layer compares them. Shapes: (B, H, T, K) -> (B, H, T, K)."""
        return heads

    def bias(self, query: Tensor, layer: int) -> Tensor | None:
        """Logits to add to the scaled content logits of a layer. Shapes: (B, H, T, K) -> (B, H, T, T)."""
        return None

    @classmethod
    def own_std(cls, head_width: int) -> float:
        """The standard deviation at which its tables start where none is given; 0 where nothing is learned."""
        return 0.0

    @classmethod
    def count_parameters(cls, layout: Layout, at: str) -> int:
        """The exact number of learned values, in closed form."""
        return 0

    @classmethod
    def macs(cls, layout: Layout, pairs: int, *, as_computed: bool = False) -> int:
        """Multiply-accumulates in one layer beside those of any attention; `pairs` are of a query and a key."""
        return 0

    @classmethod
    def has_bias(cls) -> bool:
        """Whether it compares all tokens with all tokens."""
        return cls.bias is not Position.bias

    @classmethod
    def has_table(cls) -> bool:
        """Whether it has a method `table(copy)`, (T, D), which can also be joined in another way than by adding."""
        return callable(getattr(cls, "table", None))


def check_position_shapes(position: Position, what: str) -> None:
    """Raises: ValueError for a position of the user's own that breaks what `check_method` asks of each method."""
    layout = position.layout
    tokens = probe(2, layout.tokens, layout.width)
    heads = probe(2, layout.heads, layout.tokens, layout.head_width)
    for layer in range(layout.depth):
        check_method(f"{what}: add()", position.add, tokens, layer)
        check_method(f"{what}: rotate()", position.rotate, heads, layer)
        if type(position).has_bias() and position.bias(heads.clone(), layer) is not None:
            wanted = (2, layout.heads, layout.tokens, layout.tokens)
            check_method(f"{what}: bias()", position.bias, heads, layer, wanted=wanted)
