"""One encoder layer. It hands the position on to the attention and knows no axis by name."""

from torch import Tensor, nn

from vitexp.nn.mlp import Mlp, dropout_or_nothing
from vitexp.nn.norm import NORM_EPS
from vitexp.nn.position import Position


class Block(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + MLP(norm(x)). Source: ViT paper, equations 2 and 3.

    `vitexp.nn.fit` puts other parts in the place of these. Without `norm2` both branches see one norm: x +
    attention(norm(x)) + MLP(norm(x)). Source: "Scaling Vision Transformers to 22 Billion Parameters" (2023).
    """

    def __init__(self, attention: nn.Module, width: int, mlp_width: int, dropout: float, gelu: str = "tanh") -> None:
        super().__init__()
        self.norm1: nn.Module = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = attention
        self.norm2: nn.Module | None = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp: nn.Module = Mlp(width, mlp_width, dropout, gelu)
        self.dropout = dropout_or_nothing(dropout)
        self.scale1: nn.Module | None = None
        self.scale2: nn.Module | None = None
        self.drop_path: nn.Module | None = None

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        if self.norm2 is None:
            normed = self.norm1(tokens)
            both = self.dropout(self.attention(normed, position, layer)) + self.mlp(normed)
            return tokens + self._branch(both, self.scale1)
        tokens = tokens + self._branch(self.dropout(self.attention(self.norm1(tokens), position, layer)), self.scale1)
        return tokens + self._branch(self.mlp(self.norm2(tokens)), self.scale2)

    def _branch(self, added: Tensor, scale: nn.Module | None) -> Tensor:
        """What is added, scaled, and in some images left out."""
        added = added if scale is None else scale(added)
        return added if self.drop_path is None else self.drop_path(added)
