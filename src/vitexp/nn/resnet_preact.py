"""The pre-activation trunk of BiT: norm and ReLU before each convolution, GroupNorm, standardised convolutions.

Source: "Big Transfer (BiT)" (2020) and its code. Its numerics are not those of the hybrids' trunk in resnet.py: weights
are divided by sqrt(variance + 1e-10), GroupNorm has eps 1e-5, and padding is the same on both sides. At even sizes that
shifts the grid by a pixel against "SAME", and costs the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Rule, lecun_normal

NORM_EPS = 1e-5
GROUPS = 32
STANDARDISE_EPS = 1e-10


class Conv(nn.Conv2d):
    """A convolution without bias, padded by half its kernel, whose weight is standardised at every call."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
        self.init_rules: dict[str, Rule] = {"weight": lecun_normal}

    def reset_parameters(self) -> None:
        """Left to `vitexp.nn.init.initialise`."""

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, C', ceil(rows / stride), ceil(columns / stride))."""
        return F.conv2d(images, standardise(self.weight), stride=self.stride, padding=self.padding)


def standardise(weight: Tensor) -> Tensor:
    """Zero mean and unit variance per output channel, over input channels and kernel."""
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    return (weight - mean) * torch.rsqrt(variance + STANDARDISE_EPS)


class Unit(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1, each after a norm and a ReLU; nothing after the sum.

    A shortcut that must change shape starts after the first norm.
    """

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        out = 4 * middle
        self.gn1, self.conv1 = group_norm(channels), Conv(channels, middle, 1)
        self.gn2, self.conv2 = group_norm(middle), Conv(middle, middle, 3, stride)
        self.gn3, self.conv3 = group_norm(middle), Conv(middle, out, 1)
        self.projects = stride != 1 or channels != out
        if self.projects:
            self.conv_proj = Conv(channels, out, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, 4 * middle, rows / stride, columns / stride)."""
        ready = F.relu(self.gn1(images))
        shortcut: Tensor = self.conv_proj(ready) if self.projects else images
        hidden = F.relu(self.gn2(self.conv1(ready)))
        hidden = F.relu(self.gn3(self.conv2(hidden)))
        return shortcut + self.conv3(hidden)


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm before every convolution."""
    return nn.GroupNorm(GROUPS, channels, eps=NORM_EPS)


class PreactTrunk(nn.Module):
    """Root (7x7 convolution, 3x3 max-pool, each of stride 2), a stage of units per entry of `blocks`, norm and ReLU.

    The pool's border is of zeros, not of minus infinity: BiT pads first and pools afterwards.
    """

    def __init__(self, blocks: tuple[int, ...], width_factor: float = 1) -> None:
        super().__init__()
        self.channels = int(64 * width_factor)
        self.conv_root = Conv(3, self.channels, 7, 2)
        self.stages = nn.ModuleList(self._stage(stage, units, width_factor) for stage, units in enumerate(blocks))
        self.gn = group_norm(self.channels)

    def _stage(self, stage: int, units: int, width_factor: float) -> nn.Sequential:
        middle = int(64 * width_factor) * 2**stage
        channels, self.channels = self.channels, 4 * middle
        first = Unit(channels, middle, stride=1 if stage == 0 else 2)
        return nn.Sequential(first, *(Unit(self.channels, middle, stride=1) for _ in range(units - 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, channels, rows / 32, columns / 32), rounded up, with four stages."""
        padded = F.pad(self.conv_root(images), (1, 1, 1, 1))
        if torch.compiler.is_exporting():  # onnxruntime takes a border of zeros before a pool for one of minus infinity
            padded = padded.clamp_min(torch.finfo(padded.dtype).min)
        hidden = F.max_pool2d(padded, 3, 2)
        for stage in self.stages:
            hidden = stage(hidden)
        return F.relu(self.gn(hidden))
