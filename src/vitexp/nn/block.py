"""One encoder layer. It hands the position on to the attention and knows no axis by name."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Linear, normal
from vitexp.nn.position import Position
from vitexp.nn.table import Table, part

# The activation of the MLP, GELU: in its tanh form, as Google's code has it, or exact, as timm and PyTorch have it.
# The tanh form is written so that a CPU computes it in half the time.
# x / 2 * (1 + tanh(u)) equals x * sigmoid(2 u), and torch's sigmoid is several times faster than its tanh. In a small
# network the activation is a quarter of a training step, so this is worth its lines.

# 2 u = LINEAR x + CUBIC x^3. Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", section 2.
LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = LINEAR * 0.044715


class _SigmoidForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate = (x * x).mul_(CUBIC).add_(LINEAR).mul_(x).sigmoid_()
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, gate = ctx.saved_tensors
        # gate * (1 + x (1 - gate) d(2u)/dx)
        slope: Tensor = (x * x).mul_(3 * CUBIC).add_(LINEAR).mul_(x)
        return slope.addcmul_(slope, gate, value=-1).add_(1).mul_(gate).mul_(gradient)


@part("gelu", "tanh", label="tanh GELU", about="the tanh form, as in Google's code")
def gelu(x: Tensor) -> Tensor:
    """GELU, tanh form, in the kernel that is fast where x is."""
    on_cpu = x.device.type == "cpu"
    if on_cpu and torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        wide = x.float()  # fused into one pass each way, in half the time of the compiler's own tanh
        return (wide * torch.sigmoid(wide * (LINEAR + CUBIC * wide * wide))).to(x.dtype)
    if not on_cpu or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    result: Tensor = _SigmoidForm.apply(x)
    return result


part("gelu", "exact", label="exact GELU", about="exact, as in timm, DeiT, Hugging Face and torchvision")(F.gelu)

GELUS: Table[Callable[[Tensor], Tensor]] = Table("gelu")


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
