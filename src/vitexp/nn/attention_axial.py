"""Axial attention: along the row, then along the column. Source: ViT paper, appendix D.6 and Fig. 13."""

from torch import Tensor

from vitexp.nn.attention import Full
from vitexp.nn.block import Block
from vitexp.nn.position import Layout, Position


class Row(Full):
    """A patch attends to the patches of its row."""

    def __init__(self, width: int, heads: int, layout: Layout) -> None:
        super().__init__(width, heads)
        self.grid = layout.grid

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes: (B, H, N, K) each -> (B, H, N, K)."""
        assert bias is None, "a bias is between all tokens, which an axis does not see"
        mixed = super().mix(self._lines(query), self._lines(key), self._lines(value), None)
        return self._tokens(mixed.unflatten(1, (query.shape[1], -1)))

    def _lines(self, heads: Tensor) -> Tensor:
        """Rows beside heads. Shapes: (B, H, rows * columns, K) -> (B, H * rows, columns, K)."""
        return heads.unflatten(2, self.grid).flatten(1, 2)

    def _tokens(self, lines: Tensor) -> Tensor:
        """Back again. Shapes: (B, H, rows, columns, K) -> (B, H, N, K)."""
        return lines.flatten(2, 3)


class Column(Row):
    """A patch attends to the patches of its column."""

    def _lines(self, heads: Tensor) -> Tensor:
        """Columns beside heads. Shapes: (B, H, rows * columns, K) -> (B, H * columns, rows, K)."""
        return heads.unflatten(2, self.grid).transpose(2, 3).flatten(1, 2)

    def _tokens(self, lines: Tensor) -> Tensor:
        """Back again. Shapes: (B, H, columns, rows, K) -> (B, H, N, K)."""
        return lines.transpose(2, 3).flatten(2, 3)


class AxialLayer(Block):
    """One layer in two halves: row attention and an MLP, then column attention and an MLP of its own.

    So a layer has two of everything that a full one has, and D.6 counts it as one layer, as is done here. The first
    half carries the names of a full layer, and with them its starting values. There is no prefix: the co-author's code
    has no class token, and a token beside the grid lies in no row.
    """

    def __init__(self, layout: Layout, mlp_width: int, dropout: float, gelu: str = "tanh") -> None:
        width, heads = layout.width, layout.heads
        super().__init__(Row(width, heads, layout), width, mlp_width, dropout, gelu)
        self.column = Block(Column(width, heads, layout), width, mlp_width, dropout, gelu)

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """Shapes: (B, N, D) -> (B, N, D)."""
        out: Tensor = self.column(super().forward(tokens, position, layer), position, layer)
        return out
