"""The ResNet trunk, of the hybrids and of the ResNet baselines, with norm and ReLU after each convolution or before it.

Post-activation is the trunk of the released hybrids. Source: Google's ViT code. Pre-activation is BiT. Source: "Big
Transfer (BiT)" (2020) and its code. Both have GroupNorm and convolutions whose weights are standardised, but not the
same numerics, and neither has those of other ports:

                  standardised by          eps of GroupNorm   padding
    postact       biased std + 1e-5        1e-6               TensorFlow's "SAME", the odd pixel goes after
    preact        sqrt(variance + 1e-10)   1e-5               both sides alike: an even grid shifts by a pixel
    axial         biased std + 1e-5        1e-4               "SAME", in the root: see `vitexp.nn.resnet_axial`

Parameters are drawn by name and stored in the order in which a module defines them: neither may change.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.init import Rule, lecun_normal, zeros
from vitexp.nn.table import Table, part

GROUPS = 32
NORM_EPS = {"postact": 1e-6, "preact": 1e-5, "axial": 1e-4}
STANDARDISE_EPS = {"postact": 1e-5, "preact": 1e-10, "axial": 1e-5}
_NO_EPS = 1e-20  # a constant weight is standardised to 0, not to NaN


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels to pad before and after so that the output has ceil(size / stride) of them; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(images: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pads rows and columns as TensorFlow's "SAME" does. Shapes: (B, C, rows, columns)."""
    rows, columns = images.shape[-2:]
    padding = same_padding(columns, kernel, stride) + same_padding(rows, kernel, stride)
    return F.pad(images, padding, value=value) if any(padding) else images


def standardise(weight: Tensor, order: str = "postact") -> Tensor:
    """Zero mean and unit deviation per output channel, over input channels and kernel. Shapes: (C', C, k, k).

    Layer norm without scale computes (w - mean) / sqrt(variance + eps) in one kernel, forward and backward, where the
    formula written out takes four and was a quarter of a hybrid's training step.
    """
    if order == "preact":
        flat = weight.flatten(1)
        return F.layer_norm(flat, flat.shape[1:], eps=STANDARDISE_EPS[order]).view_as(weight)
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        std, mean = torch.std_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (weight - mean) / (std + STANDARDISE_EPS[order])
    result: Tensor = _ByDeviation.apply(weight, STANDARDISE_EPS[order])
    return result


class _ByDeviation(torch.autograd.Function):
    """(w - mean) / (std + eps): what layer norm gives without an eps, times std / (std + eps)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, eps: float) -> Tensor:
        flat = weight.flatten(1)
        normed, mean, inverse = torch.native_layer_norm(flat, flat.shape[1:], None, None, _NO_EPS)
        share = 1 / (1 + eps * inverse)
        ctx.save_for_backward(flat, normed, mean, inverse, share)
        return (normed * share).view_as(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        flat, normed, mean, inverse, share = ctx.saved_tensors
        scaled = gradient.reshape(flat.shape) * share
        through_norm = torch.ops.aten.native_layer_norm_backward(
            scaled, flat, list(flat.shape[1:]), mean, inverse, None, None, [True, False, False]
        )[0]
        along = (scaled * normed).mean(dim=1, keepdim=True)
        return through_norm.addcmul_(normed, along * inverse * (1 - share)).view_as(gradient), None


class StandardisedConv(nn.Conv2d):
    """A convolution without bias whose weight is standardised at every call; the raw weight is what is stored."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, order: str = "postact"
    ) -> None:
        padding = kernel // 2 if order == "preact" else 0
        super().__init__(channels_in, channels_out, kernel, stride, padding=padding, bias=False)
        self.order = order
        self.init_rules: dict[str, Rule] = {"weight": lecun_normal}

    def reset_parameters(self) -> None:
        """Left to `vitexp.nn.init.initialise`."""

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, C', ceil(rows / stride), ceil(columns / stride))."""
        if self.order != "preact":
            images = pad_same(images, self.kernel_size[0], self.stride[0])
        return F.conv2d(images, standardise(self.weight, self.order), stride=self.stride, padding=self.padding)


def group_norm(channels: int, order: str = "postact") -> nn.GroupNorm:
    """The norm that every convolution has, after it or before it."""
    return nn.GroupNorm(GROUPS, channels, eps=NORM_EPS[order])


@part("resnet", "preact", label="pre-activation", about="before each convolution, as in BiT")
class PreactUnit(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1, each after a norm and a ReLU; nothing after the sum.

    A shortcut that must change shape starts after the first norm.
    """

    def __init__(self, channels: int, middle: int, stride: int, grid: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        out = 4 * middle
        self.gn1, self.conv1 = group_norm(channels, "preact"), StandardisedConv(channels, middle, 1, order="preact")
        self.gn2, self.conv2 = group_norm(middle, "preact"), StandardisedConv(middle, middle, 3, stride, order="preact")
        self.gn3, self.conv3 = group_norm(middle, "preact"), StandardisedConv(middle, out, 1, order="preact")
        self.projects = stride != 1 or channels != out
        if self.projects:
            self.conv_proj = StandardisedConv(channels, out, 1, stride, order="preact")

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, 4 * middle, rows / stride, columns / stride)."""
        ready = F.relu(self.gn1(images))
        shortcut: Tensor = self.conv_proj(ready) if self.projects else images
        hidden = F.relu(self.gn2(self.conv1(ready)))
        hidden = F.relu(self.gn3(self.conv2(hidden)))
        return shortcut + self.conv3(hidden)


@part("resnet", "postact", label="post-activation", about="after it, as in the hybrids")
class Unit(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1, each normed; ReLU after the sum. `grid` is the size of its maps.

    The last norm starts at scale 0, so that a unit starts as its shortcut.
    """

    order: ClassVar[str] = "postact"

    def __init__(self, channels: int, middle: int, stride: int, grid: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        out, order = 4 * middle, self.order
        self.conv1, self.gn1 = StandardisedConv(channels, middle, 1, order=order), group_norm(middle, order)
        self.make_spatial(middle, stride, grid)
        self.conv3, self.gn3 = StandardisedConv(middle, out, 1, order=order), group_norm(out, order)
        self.gn3.init_rules = {"weight": zeros, "bias": zeros}  # type: ignore[assignment]
        self.projects = stride != 1 or channels != out
        if self.projects:
            self.conv_proj = StandardisedConv(channels, out, 1, stride, order)
            self.gn_proj = group_norm(out, order)

    def make_spatial(self, channels: int, stride: int, grid: tuple[int, int]) -> None:
        """What mixes places."""
        self.conv2, self.gn2 = StandardisedConv(channels, channels, 3, stride), group_norm(channels)

    def spatial(self, hidden: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, C, rows / stride, columns / stride)."""
        mixed: Tensor = self.gn2(self.conv2(hidden))
        return mixed

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, C, rows, columns) -> (B, 4 * middle, rows / stride, columns / stride)."""
        shortcut = self.gn_proj(self.conv_proj(images)) if self.projects else images
        hidden = F.relu(self.gn1(self.conv1(images)))
        return F.relu(shortcut + self.gn3(self.conv3(F.relu(self.spatial(hidden)))))


UNITS: Table[type[Unit] | type[PreactUnit]] = Table("resnet")


class Trunk(nn.Module):
    """Root (7x7 convolution, 3x3 max-pool, each of stride 2), then a stage of units per entry of `blocks`.

    Without blocks it is the root alone. With pre-activation a norm and a ReLU come last, and the border of the pool is
    of zeros, not of minus infinity: BiT pads first and pools afterwards. Only `axial` asks for the `size` of images.
    """

    def __init__(
        self, blocks: tuple[int, ...], width_factor: float = 1, order: str = "postact", size: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.channels = int(64 * width_factor)
        self.order, self.size = order, size
        self.conv_root = StandardisedConv(3, self.channels, 7, 2, order)
        if order != "preact":
            self.gn_root = group_norm(self.channels, order)
        self.stages = nn.ModuleList(self._stage(stage, units, width_factor) for stage, units in enumerate(blocks))
        if order == "preact":
            self.gn = group_norm(self.channels, order)

    def _stage(self, stage: int, units: int, width_factor: float) -> nn.Sequential:
        middle = int(64 * width_factor) * 2**stage
        channels, self.channels = self.channels, 4 * middle
        unit = UNITS[self.order]
        first = unit(channels, middle, 2 if stage else 1, self._maps(max(2, stage + 1)))
        return nn.Sequential(first, *(unit(self.channels, middle, 1, self._maps(stage + 2)) for _ in range(units - 1)))

    def _maps(self, halvings: int) -> tuple[int, int]:
        return -(-self.size[0] // 2**halvings), -(-self.size[1] // 2**halvings)

    def output_size(self, size: int) -> int:
        """Rows or columns of the output, for this many of the input."""
        return -(-size // 2 ** (2 + max(len(self.stages) - 1, 0)))

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, channels, output_size(rows), output_size(columns))."""
        hidden = self._root(images)
        for stage in self.stages:
            hidden = stage(hidden)
        return F.relu(self.gn(hidden)) if self.order == "preact" else hidden

    def _root(self, images: Tensor) -> Tensor:
        if self.order != "preact":
            hidden = F.relu(self.gn_root(self.conv_root(images)))
            return F.max_pool2d(pad_same(hidden, 3, 2, value=float("-inf")), 3, 2)
        padded = F.pad(self.conv_root(images), (1, 1, 1, 1))
        if torch.compiler.is_exporting():  # onnxruntime takes a border of zeros before a pool for one of minus infinity
            padded = padded.clamp_min(torch.finfo(padded.dtype).min)
        return F.max_pool2d(padded, 3, 2)
