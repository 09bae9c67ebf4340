"""What comes between a branch of a block, attention or MLP, and the sum that it is added to."""

import torch
from torch import Tensor, nn

from vitexp.nn.init import Rule, constant
from vitexp.nn.table import part

part("block", "sequential", label="sequential blocks", about="attention, then the MLP, each after a norm of its own")
part("block", "parallel", label="parallel blocks", about="attention and MLP side by side, after one norm")


class LayerScale(nn.Module):
    """A learned factor for each channel. Source: "Going deeper with Image Transformers" (2021)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))
        self.init_rules: dict[str, Rule] = {"gamma": constant(start)}

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        return tokens * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: in training a branch is left out of an image at this rate, and scaled up in the others.

    The draws follow torch's seed. Source: "Deep Networks with Stochastic Depth" (2016), per image as in timm and DeiT.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, T, D) -> (B, T, D)."""
        if not self.training:
            return tokens
        keep = 1 - self.rate
        return tokens * tokens.new_empty(tokens.shape[0], 1, 1).bernoulli_(keep).div_(keep)


def path_rate(rate: float, layer: int, depth: int) -> float:
    """The rate of one layer: from 0 in the first to `rate` in the last, in equal steps."""
    return rate * layer / max(1, depth - 1)
