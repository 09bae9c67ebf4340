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
        return self.around(self.tokens.expand(len(tokens), -1, -1), tokens, 1)

    def around(self, middle: Tensor, others: Tensor, dim: int) -> Tensor:
        """Others with something in the place of the registers along a dimension."""
        return torch.cat([others.narrow(dim, 0, self.prefix), middle, self._after(others, self.prefix, dim)], dim)

    def without(self, tokens: Tensor, dim: int = 1) -> Tensor:
        """What `insert` was given. Shapes: (B, P + R + N, D) -> (B, P + N, D)."""
        after = self._after(tokens, self.prefix + self.count, dim)
        return torch.cat([tokens.narrow(dim, 0, self.prefix), after], dim) if self.prefix else after

    def only(self, tokens: Tensor, dim: int) -> Tensor:
        """The registers along a dimension."""
        return tokens.narrow(dim, self.prefix, self.count)

    @staticmethod
    def _after(tokens: Tensor, start: int, dim: int) -> Tensor:
        return tokens.narrow(dim, start, tokens.shape[dim] - start)


class Placed:
    """A position for the tokens that have a place; it answers what a `Position` does, and passes registers by."""

    def __init__(self, position: Position, registers: Registers) -> None:
        self.position, self.registers = position, registers

    def add(self, tokens: Tensor, layer: int) -> Tensor:
        """Shapes: (B, P + R + N, D) -> (B, P + R + N, D)."""
        if type(self.position).add is Position.add:
            return tokens
        placed = self.registers.without(tokens)
        added = self.position.add(placed, layer)
        return tokens if added is placed else self.registers.around(self.registers.only(tokens, 1), added, 1)

    def rotate(self, heads: Tensor, layer: int) -> Tensor:
        """Shapes: (B, H, P + R + N, K) -> (B, H, P + R + N, K)."""
        if type(self.position).rotate is Position.rotate:
            return heads
        turned = self.position.rotate(self.registers.without(heads, 2), layer)
        return self.registers.around(self.registers.only(heads, 2), turned, 2)

    def bias(self, query: Tensor, layer: int) -> Tensor | None:
        """Shapes: (B, H, P + R + N, K) -> (B, H, P + R + N, P + R + N)."""
        placed = self.registers.without(query, 2)
        bias = self.position.bias(placed, layer)
        if bias is None:
            return None
        bias = bias.expand(*bias.shape[:-2], placed.shape[2], placed.shape[2])
        for dim in (-1, -2):
            shape = [*bias.shape]
            shape[dim] = self.registers.count
            bias = self.registers.around(bias.new_zeros(shape), bias, dim)
        return bias
