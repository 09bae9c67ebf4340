"""AxialResNet: a post-activation ResNet with attention along rows and columns in place of its 3x3 convolutions.

Source: ViT paper, appendix D.6 and Fig. 13, and the later code of a co-author; the attention is that of "Axial-DeepLab"
(Wang et al., 2020), equation 4. Of that code: 8 heads, queries and keys half as wide as values, no scale on logits,
GroupNorm (epsilon 1e-4) around the attention, each line of the maps by itself, and an average pool for the stride. Its
first axis is what it calls rows; here the order is the paper's, rows and then columns.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Rule, normal
from vitexp.nn.resnet import Unit, group_norm, pad_same
from vitexp.nn.table import part

HEADS = 8


class LineAttention(nn.Module):
    """Attention along a line with a learned vector per offset for queries, for keys and for values.

    q_i k_j + q_i r_(j-i) + k_j s_(j-i) are the logits, and v_j + t_(j-i) the values; the heads share r, s and t. Rows
    of `weight` are query, key and value, head by head.
    """

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.length, self.parts = length, [channels // HEADS // 2] * 2 + [channels // HEADS]
        self.weight = nn.Parameter(torch.empty(2 * channels, channels))
        self.gn_qkv = group_norm(2 * channels, "axial")
        self.offsets = nn.Parameter(torch.empty(2 * length - 1, 2 * channels // HEADS))
        self.gn_out = group_norm(channels, "axial")
        self.init_rules: dict[str, Rule] = {"weight": normal(1 / channels), "offsets": normal(HEADS / channels)}

    def forward(self, lines: Tensor) -> Tensor:
        """Shapes: (B, C, L) -> (B, C, L)."""
        heads = self.gn_qkv(self.weight @ lines).unflatten(1, (HEADS, -1))
        query, key, value = heads.split(self.parts, dim=2)
        table = self.offsets.unfold(0, self.length, 1).flip(0)  # (query, width, key)
        r, s, t = table.split(self.parts, dim=1)
        logits = torch.einsum("bhdi,bhdj->bhij", query, key)
        logits = logits + torch.einsum("bhdi,idj->bhij", query, r) + torch.einsum("bhdj,idj->bhij", key, s)
        shares = logits.softmax(dim=-1)
        seen = torch.einsum("bhij,bhdj->bhdi", shares, value) + torch.einsum("bhij,idj->bhdi", shares, t)
        out: Tensor = self.gn_out(seen.flatten(1, 2))
        return out


@part("resnet", "axial", label="axial attention", about="as postact, with axial attention in place of 3x3 convolutions")
class AxialUnit(Unit):
    """1x1, attention along rows and then along columns, an average pool where there is a stride, 1x1."""

    order: ClassVar[str] = "axial"

    def make_spatial(self, channels: int, stride: int, grid: tuple[int, int]) -> None:
        """Raises: ValueError for a line of one place, whose norm would leave nothing of it."""
        if min(grid) < 2:
            raise ValueError(
                f"resnet axial attends along rows and columns, and a stage has maps of {grid[0]} x {grid[1]}: use "
                "images of more than 32 pixels each way, or resnet postact"
            )
        self.row, self.column, self.stride = LineAttention(channels, grid[1]), LineAttention(channels, grid[0]), stride

    def spatial(self, hidden: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, C, rows / stride, columns / stride)."""
        rows = _along(self.row, hidden)
        mixed = _along(self.column, rows.transpose(2, 3)).transpose(2, 3)
        return mixed if self.stride == 1 else F.avg_pool2d(pad_same(mixed, 2, 2), 2)

    @staticmethod
    def spatial_macs(grid: tuple[int, int], channels: int) -> int:
        """Per axis a projection of 2 C channels, and 3.5 C products for each place and each place of its line."""
        return grid[0] * grid[1] * (4 * channels**2 + sum(grid) * 7 * channels // 2)


def _along(attention: LineAttention, maps: Tensor) -> Tensor:
    """Shapes: (B, C, lines, L) -> (B, C, lines, L)."""
    mixed: Tensor = attention(maps.transpose(1, 2).flatten(0, 1))
    return mixed.unflatten(0, (maps.shape[0], -1)).transpose(1, 2)
