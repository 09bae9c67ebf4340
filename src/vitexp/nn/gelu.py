"""The activation of the MLP, GELU: in its tanh form, as Google's code has it, or exact, as timm and PyTorch have it.

The tanh form is written so that a CPU computes it in half the time.

x / 2 * (1 + tanh(u)) equals x * sigmoid(2 u), and torch's sigmoid is several times faster than its tanh. In a small
network the activation is a quarter of a training step, so this is worth its lines.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Gelu = Literal["tanh", "exact"]

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


def gelu(x: Tensor) -> Tensor:
    """GELU, tanh form. Elsewhere than on a CPU in fp32, and when compiled, torch's own kernel is the fast one."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    result: Tensor = _SigmoidForm.apply(x)
    return result


GELUS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": gelu, "exact": F.gelu}
