"""Registers: learned tokens that are neither read nor lie anywhere, as room for what a network works out.

They stand between the class token and the patches. They have no place: no position is added to them, they are not
turned, and their logits get no bias. So every other parameter has the shape, and the start, that it has without them.

Source: "Vision Transformers Need Registers" (2023) and DINOv2's code, whose start (std 1e-6) is taken.
"""

import torch
from torch import Tensor, nn

from vitexp.nn.init import Rule, normal
from vitexp.nn.position import Position


class Registers(nn.Module):
    """So many learned tokens, after a prefix of so many others."""

    def __init__(self, count: int, width: int, prefix: int) -> None:
        super().__init__()
        self.count, self.prefix = count, prefix
        self.tokens = nn.Parameter(torch.empty(1, count, width))
        self.init_rules: dict[str, Rule] = {"tokens": normal(1e-6)}

    def insert(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) -> (B, P + R + N, D)."""
        return self.around(self.tokens.expand(tokens.shape[0], -1, -1), tokens, 1)

    def around(self, middle: Tensor, others: Tensor, dim: int) -> Tensor:
        """Others with something in the place of the registers along a dimension."""
        before, after = others.tensor_split([self.prefix], dim)
        return torch.cat([before, middle, after], dim)

    def apart(self, tokens: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
        """The registers and the others along a dimension."""
        before, own, after = tokens.tensor_split([self.prefix, self.prefix + self.count], dim)
        return own, torch.cat([before, after], dim) if self.prefix else after


class Placed:
    """A position for the tokens that have a place; it answers what a `Position` does, and passes registers by."""

    def __init__(self, position: Position, registers: Registers) -> None:
        self.position, self.registers = position, registers

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """Shapes: (B, P + R + N, D) -> (B, P + R + N, D)."""
        if type(self.position).add is Position.add:
            return tokens
        own, placed = self.registers.apart(tokens)
        added = self.position.add(placed, layer)
        return tokens if added is placed else self.registers.around(own, added, 1)

    def rotate(self, heads: Tensor, layer: int) -> Tensor:
        """Shapes: (B, H, P + R + N, K) -> (B, H, P + R + N, K)."""
        if type(self.position).rotate is Position.rotate:
            return heads
        own, placed = self.registers.apart(heads, 2)
        return self.registers.around(own, self.position.rotate(placed, layer), 2)

    def bias(self, query: Tensor, layer: int) -> Tensor | None:
        """Shapes: (B, H, P + R + N, K) -> (B, H, P + R + N, P + R + N)."""
        _, placed = self.registers.apart(query, 2)
        bias = self.position.bias(placed, layer)
        if bias is None:
            return None
        bias = bias.expand(*bias.shape[:-2], placed.shape[2], placed.shape[2])
        for dim in (-1, -2):
            zeros = torch.zeros_like(bias.narrow(dim, 0, 1)).repeat_interleave(self.registers.count, dim)
            bias = self.registers.around(zeros, bias, dim)
        return bias
