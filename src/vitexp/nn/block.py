"""One encoder layer. It hands the position on to the attention and knows no axis by name."""

from torch import Tensor, nn

from vitexp.nn.gelu import GELUS
from vitexp.nn.init import Linear, normal
from vitexp.nn.position import Position

NORM_EPS = 1e-6


def dropout_or_nothing(rate: float) -> nn.Module:
    """Dropout; at rate 0 no operation at all, as torch's own would still draw and multiply."""
    return nn.Dropout(rate) if rate else nn.Identity()


class Mlp(nn.Module):
    """Dense, GELU, dense; dropout after each dense layer. Biases start at std 1e-6, not at 0."""

    def __init__(self, width: int, hidden: int, dropout: float, gelu: str = "tanh") -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden, bias=normal(1e-6))
        self.fc2 = Linear(hidden, width, bias=normal(1e-6))
        self.gelu = GELUS[gelu]
        self.dropout = dropout_or_nothing(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        hidden = self.dropout(self.gelu(self.fc1(tokens)))
        out: Tensor = self.dropout(self.fc2(hidden))
        return out


class Block(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + MLP(norm(x)). Source: ViT paper, equations 2 and 3."""

    def __init__(self, attention: nn.Module, width: int, mlp_width: int, dropout: float, gelu: str = "tanh") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_width, dropout, gelu)
        self.dropout = dropout_or_nothing(dropout)

    def forward(self, tokens: Tensor, position: Position, layer: int) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens), position, layer))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out
