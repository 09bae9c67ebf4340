"""Sparse attention along the raster sequence: a row's length is the stride of the patterns.

Source: "Generating Long Sequences with Sparse Transformers" (Child et al., 2019). There a sequence is read from left to
right; here a patch sees both ways, as everywhere in an encoder. The two patterns of a pair are seen by every head of
every layer at once (its "merged head"), so that a layer has the parameters of a full one.
"""

import torch
from torch import Tensor

from vitexp.nn.attention import Masked, band
from vitexp.nn.position import Layout
from vitexp.nn.table import part


@part("attention", "strided", label="strided attention", about="each patch to a row's length each way and its column")
class Strided(Masked):
    """A patch at index i of the raster sequence sees those less than a row's length l away, and those k * l away.

    With the length of a row as its stride the second pattern is the column of the patch. Two layers reach everything.
    """

    def __init__(self, width: int, heads: int, layout: Layout, window: int) -> None:
        super().__init__(width, heads, layout, window)
        if min(layout.grid) == 1:
            raise ValueError(
                f"in the grid {layout.grid} every patch sees every other: use attention full, or images of at least 2 "
                "rows and 2 columns of patches"
            )

    @classmethod
    def seen(cls, layout: Layout, window: int) -> Tensor:
        """By places apart in the sequence."""
        places, stride = torch.arange(layout.patches), layout.grid[1]
        apart = (places[:, None] - places).abs()
        return (apart < stride) | (apart % stride == 0)

    @classmethod
    def near(cls, layout: Layout, window: int) -> int:
        """A band of the sequence, and the column without the patch itself, which lies in both."""
        rows, columns = layout.grid
        return band(layout.patches, columns - 1) + layout.patches * (rows - 1)


@part("attention", "fixed", label="fixed attention", about="each patch to its row and the last patch of every row")
class Fixed(Strided):
    """A patch sees its row, and the last patch of every row, which so hands on what its row holds (c = 1)."""

    @classmethod
    def seen(cls, layout: Layout, window: int) -> Tensor:
        """By the rows of both, and the key's column."""
        rows, columns = (index.flatten() for index in torch.meshgrid(*map(torch.arange, layout.grid), indexing="ij"))
        return (rows[:, None] == rows) | (columns == layout.grid[1] - 1)

    @classmethod
    def near(cls, layout: Layout, window: int) -> int:
        """The row, and one patch of each other row."""
        return layout.patches * (sum(layout.grid) - 1)
