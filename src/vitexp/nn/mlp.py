"""The MLP axis: what a layer does to each token alone. The activation of the paper's MLP, GELU, has an axis of its own.

To add one: write its class with a `part` row above it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Linear, normal
from vitexp.nn.table import Table, check_method, part, probe

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


def dropout_or_nothing(rate: float) -> nn.Module:
    """Dropout; at rate 0 no operation at all, as torch's own would still draw and multiply."""
    return nn.Dropout(rate) if rate else nn.Identity()


class TokenMlp(nn.Module):
    """The base of every MLP, also of one of the user's own. `hidden` is the hidden width of the paper's MLP."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """Each token alone. Shapes: (B, T, D) -> (B, T, D)."""
        raise NotImplementedError

    @classmethod
    def macs(cls, width: int, hidden: int) -> int:
        """Multiply-accumulates of one token."""
        return 0


@part("mlp", "gelu", label="GELU MLP", about="dense, GELU, dense")
class Mlp(TokenMlp):
    """Dense, GELU, dense; dropout after each dense layer. Biases start at std 1e-6, not at 0."""

    def __init__(self, width: int, hidden: int, dropout: float, gelu: str = "tanh") -> None:
        super().__init__(width, hidden, dropout)
        self.fc1 = Linear(width, hidden, bias=normal(1e-6))
        self.fc2 = Linear(hidden, width, bias=normal(1e-6))
        self.gelu = GELUS[gelu]
        self.dropout = dropout_or_nothing(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        hidden = self.dropout(self.gelu(self.fc1(tokens)))
        out: Tensor = self.dropout(self.fc2(hidden))
        return out

    @classmethod
    def macs(cls, width: int, hidden: int) -> int:
        """Two matrices."""
        return 2 * width * hidden


@part("mlp", "swiglu", label="SwiGLU", about="dense(silu(gate) * up) with the parameters of the other")
class SwiGlu(TokenMlp):
    """dense(silu(gate(x)) * up(x)): three matrices, of a hidden width at which they have the parameters of two.

    Source: Shazeer, "GLU Variants Improve Transformer" (2020), biases as everywhere here and as in timm's `SwiGLU`.
    """

    def __init__(self, width: int, hidden: int, dropout: float, gelu: str = "tanh") -> None:
        super().__init__(width, hidden, dropout)
        hidden = swiglu_width(hidden)
        self.gate = Linear(width, hidden, bias=normal(1e-6))
        self.up = Linear(width, hidden, bias=normal(1e-6))
        self.fc2 = Linear(hidden, width, bias=normal(1e-6))
        self.dropout = dropout_or_nothing(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        hidden = self.dropout(F.silu(self.gate(tokens)) * self.up(tokens))
        out: Tensor = self.dropout(self.fc2(hidden))
        return out

    @classmethod
    def macs(cls, width: int, hidden: int) -> int:
        """Three matrices."""
        return 3 * width * swiglu_width(hidden)


def swiglu_width(hidden: int) -> int:
    """Two thirds of the hidden width of the MLP that it replaces, to the nearest multiple of 8: 3072 -> 2048."""
    return max(8, 8 * round(hidden / 12))


def check_mlp_shapes(mlp: TokenMlp, what: str) -> None:
    """Raises: ValueError for an MLP of the user's own that changes the shape of what it is given."""
    check_method(f"{what}: forward()", mlp, probe(2, 3, mlp.width))


MLPS: Table[type[TokenMlp]] = Table(
    "mlp", TokenMlp, one_of=("forward",), arguments=3, check=check_mlp_shapes, plain="gelu"
)
