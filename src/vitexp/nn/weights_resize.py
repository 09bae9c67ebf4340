"""Position tables for another image size: the learned grid is stretched, corners onto corners.

Source: Google's ViT code, which zooms at order 1: linear, with the outermost positions kept. Resizing with half-pixel
centres, as other ports do, gives other numbers.
"""

import math

import torch
from torch import Tensor

from vitexp.nn.position import Layout

_KINDS = ("tables", "x", "y")


def can_resize(name: str) -> bool:
    """Whether this parameter is a position table whose rows may differ from the network's."""
    return name.startswith(tuple(f"position.{kind}." for kind in _KINDS))


def resize_position(name: str, table: Tensor, layout: Layout, grid: tuple[int, int] | None) -> Tensor:
    """A position table of any grid, fitted to `layout`; other parameters come back as they are.

    `grid` is the rows and columns that the table was learned on; None takes a table with the right number of rows as
    it is, and any other for a square. Raises: ValueError where the number of rows says neither.
    """
    if not can_resize(name):
        return table
    kind = name.split(".")[1]
    if kind == "tables":
        return _resize_table(table, layout, grid)
    return resize_grid(table, (len(table), 1), (layout.grid[1 if kind == "x" else 0], 1))


def _resize_table(table: Tensor, layout: Layout, grid: tuple[int, int] | None) -> Tensor:
    if len(table) == layout.tokens and grid in (None, layout.grid):
        return table
    old = grid or _square(len(table) - layout.prefix) or layout.grid
    if len(table) != layout.prefix + old[0] * old[1]:
        raise ValueError(
            f"a position table of {len(table)} rows is not {layout.prefix} for the prefix and a grid of "
            f"{old[0]} x {old[1]}: give grid, the rows and columns of patches in the network that learned it"
        )
    return torch.cat([table[: layout.prefix], resize_grid(table[layout.prefix :], old, layout.grid)])


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bilinear, corner-aligned. Shapes: (old rows * old columns, D) -> (new rows * new columns, D)."""
    maps = table.double().T.unflatten(1, old)[None]
    resized = torch.nn.functional.interpolate(maps, new, mode="bilinear", align_corners=True)
    return resized[0].flatten(1).T.to(table.dtype)


def is_square(count: int) -> bool:
    """Whether so many patches can be a square grid."""
    return _square(count) is not None


def _square(count: int) -> tuple[int, int] | None:
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None
