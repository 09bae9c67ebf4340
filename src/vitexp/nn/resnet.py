"""The ResNet trunk of the hybrids: post-activation bottlenecks with GroupNorm and standardised convolutions.

Source: Google's ViT code, from which the released hybrids come. It is not the pre-activation BiT network, and its
numerics differ from other ports: biased std + 1e-5, GroupNorm eps 1e-6, TensorFlow's "SAME" padding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Rule, lecun_normal, zeros

NORM_EPS = 1e-6
GROUPS = 32
STANDARDISE_EPS = 1e-5


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels to pad before and after so that the output has ceil(size / stride) of them; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(images: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pads rows and columns as TensorFlow's "SAME" does. Shapes: (B, C, rows, columns)."""
    rows, columns = images.shape[-2:]
    padding = same_padding(columns, kernel, stride) + same_padding(rows, kernel, stride)
    return F.pad(images, padding, value=value) if any(padding) else images


def standardise(weight: Tensor) -> Tensor:
    """Zero mean and unit deviation per output channel, over input channels and kernel."""
    std, mean = torch.std_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    return (weight - mean) / (std + STANDARDISE_EPS)


class StandardisedConv(nn.Conv2d):
    """A convolution without bias whose weight is standardised at every call; the raw weight is what is stored."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, bias=False)
        self.init_rules: dict[str, Rule] = {"weight": lecun_normal}

    def reset_parameters(self) -> None:
        """Left to `vitexp.nn.init.initialise`."""

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, C', ceil(rows / stride), ceil(columns / stride))."""
        padded = pad_same(images, self.kernel_size[0], self.stride[0])
        return F.conv2d(padded, standardise(self.weight), stride=self.stride)


class Unit(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1, each normed; ReLU after the sum.

    The last norm starts at scale 0, so that a unit starts as its shortcut.
    """

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        out = 4 * middle
        self.conv1, self.gn1 = StandardisedConv(channels, middle, 1), group_norm(middle)
        self.conv2, self.gn2 = StandardisedConv(middle, middle, 3, stride), group_norm(middle)
        self.conv3, self.gn3 = StandardisedConv(middle, out, 1), group_norm(out)
        self.gn3.init_rules = {"weight": zeros, "bias": zeros}  # type: ignore[assignment]
        self.projects = stride != 1 or channels != out
        if self.projects:
            self.conv_proj, self.gn_proj = StandardisedConv(channels, out, 1, stride), group_norm(out)

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, 4 * middle, rows / stride, columns / stride)."""
        shortcut = self.gn_proj(self.conv_proj(images)) if self.projects else images
        hidden = F.relu(self.gn1(self.conv1(images)))
        hidden = F.relu(self.gn2(self.conv2(hidden)))
        return F.relu(shortcut + self.gn3(self.conv3(hidden)))


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm of every convolution."""
    return nn.GroupNorm(GROUPS, channels, eps=NORM_EPS)


class Trunk(nn.Module):
    """Root (7x7 convolution, 3x3 max-pool, each of stride 2), then a stage of units per entry of `blocks`.

    Without blocks it is the root alone.
    """

    def __init__(self, blocks: tuple[int, ...], width_factor: float = 1) -> None:
        super().__init__()
        self.channels = int(64 * width_factor)
        self.conv_root, self.gn_root = StandardisedConv(3, self.channels, 7, 2), group_norm(self.channels)
        self.stages = nn.ModuleList(self._stage(stage, units, width_factor) for stage, units in enumerate(blocks))

    def _stage(self, stage: int, units: int, width_factor: float) -> nn.Sequential:
        middle = int(64 * width_factor) * 2**stage
        channels, self.channels = self.channels, 4 * middle
        first = Unit(channels, middle, stride=1 if stage == 0 else 2)
        return nn.Sequential(first, *(Unit(self.channels, middle, stride=1) for _ in range(units - 1)))

    def output_size(self, size: int) -> int:
        """Rows or columns that come out, for so many that go in."""
        halvings = 2 + max(len(self.stages) - 1, 0)
        for _ in range(halvings):
            size = -(-size // 2)
        return size

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, channels, output_size(rows), output_size(columns))."""
        hidden = F.relu(self.gn_root(self.conv_root(images)))
        hidden = F.max_pool2d(pad_same(hidden, 3, 2, value=float("-inf")), 3, 2)
        for stage in self.stages:
            hidden = stage(hidden)
        return hidden
