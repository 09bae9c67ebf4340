"""The stem axis: how an image becomes tokens. It owns the grid (rows, columns).

To add a hybrid: its row and its word in arch.py, no more.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp import axes
from vitexp.nn.arch import CHANNELS_IN_GROUP, HYBRIDS, Arch
from vitexp.nn.init import Rule, he_normal, lecun_normal, zeros
from vitexp.nn.norm import NORM_EPS
from vitexp.nn.resnet import Trunk
from vitexp.nn.table import Table, check_shape
from vitexp.own import WrongPart


class PatchEmbedding(nn.Module):
    """Cuts maps into patches and projects each: a convolution whose stride is its kernel, as one matrix product."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(width, channels, patch, patch))
        self.bias = nn.Parameter(torch.empty(width))
        self.init_rules: dict[str, Rule] = {"weight": lecun_normal, "bias": zeros}

    def forward(self, maps: Tensor) -> Tensor:
        """Raster order. Shapes: (B, C, rows * patch, columns * patch) -> (B, N, D)."""
        cut = maps.unflatten(-1, (-1, self.patch)).unflatten(-3, (-1, self.patch))
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class Stem(nn.Module):
    """A grid of the arch's patches. Also the base of a stem of the user's own, which may put another grid in its place.

    `arch` has `width` and `patch`, which is in pixels.
    """

    def __init__(self, arch: Arch, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.image_size, self.width = image_size, arch.width
        self.grid = divide(image_size, arch.patch, f"image_size {image_size}")

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        check_images(images, self.image_size)
        return self.embed(images)

    def embed(self, images: Tensor) -> Tensor:
        """The tokens in raster order. Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        raise NotImplementedError


class PatchStem(Stem):
    """Patches of the image itself. Source: ViT paper, equation 1."""

    def __init__(self, arch: Arch, image_size: tuple[int, int]) -> None:
        super().__init__(arch, image_size)
        self.embedding = PatchEmbedding(3, arch.width, arch.patch)

    def embed(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        tokens: Tensor = self.embedding(images)
        return tokens


class HybridStem(nn.Module):
    """Patches of a ResNet's feature maps, mostly of one position each. Source: ViT paper, section 3.1."""

    def __init__(self, arch: Arch, image_size: tuple[int, int]) -> None:
        super().__init__()
        assert arch.resnet_blocks is not None, "a hybrid has a trunk"
        self.image_size = image_size
        self.trunk = Trunk(arch.resnet_blocks)
        features = (self.trunk.output_size(image_size[0]), self.trunk.output_size(image_size[1]))
        self.grid = divide(features, arch.feature_patch, f"image_size {image_size}, feature maps of {features}")
        self.embedding = PatchEmbedding(self.trunk.channels, arch.width, arch.feature_patch)

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        check_images(images, self.image_size)
        tokens: Tensor = self.embedding(self.trunk(images))
        return tokens


class Convolution(nn.Conv2d):
    """3 x 3 with stride 2, as many zeros on all sides, and no bias."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, 2, padding=1, bias=False)
        self.init_rules: dict[str, Rule] = {"weight": he_normal}

    def reset_parameters(self) -> None:
        """Left to `vitexp.nn.init.initialise`."""


class ConvStem(Stem):
    """3 x 3 convolutions of stride 2, each with a norm and a ReLU, then one of 1 x 1 to the width.

    The norm is GroupNorm, where the source has BatchNorm: so that no image sees another of its batch, and a batch cut
    in parts gives the same. The source also takes one layer off the encoder; here the depth is that of the arch.
    Source: Xiao et al., "Early Convolutions Help Transformers See Better" (2021), the form of its smaller networks.
    """

    def __init__(self, arch: Arch, image_size: tuple[int, int]) -> None:
        super().__init__(arch, image_size)
        channels = [3, *arch.convolutions]
        self.convolutions = nn.ModuleList(map(Convolution, channels[:-1], channels[1:]))
        self.norms = nn.ModuleList(nn.GroupNorm(c // CHANNELS_IN_GROUP, c, eps=NORM_EPS) for c in channels[1:])
        self.embedding = PatchEmbedding(channels[-1], arch.width, 1)

    def embed(self, images: Tensor) -> Tensor:
        """Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            images = F.relu(norm(convolution(images)))
        tokens: Tensor = self.embedding(images)
        return tokens


def check_stem(stem: Stem, what: str) -> None:
    """Raises: ValueError for a stem of the user's own whose tokens are not those of its grid."""
    grid = stem.grid
    if not (isinstance(grid, tuple) and len(grid) == 2 and all(type(one) is int and one > 0 for one in grid)):
        raise WrongPart(f"{what} has grid {grid!r}, and must have a pair of whole numbers, rows and columns")
    tokens = stem(torch.zeros(1, 3, *stem.image_size))
    check_shape(f"{what}: embed()", tokens, (1, math.prod(grid), stem.width))


STEMS: Table[Any] = Table("stem", Stem, one_of=("embed",), arguments=2, check=check_stem, plain="patch", formula="")
"""For stems of the user's own: the built-in ones follow from the arch."""


def make_stem(arch: Arch, image_size: tuple[int, int], config: Any = None) -> Stem | HybridStem:
    """The stem that an architecture names; one of the user's own has its options in `config`."""
    if axes.is_path(arch.stem):
        own: Stem = STEMS.make(config, arch, image_size)
        return own
    kind = HybridStem if arch.stem in HYBRIDS else ConvStem if arch.convolutions else PatchStem
    return kind(arch, image_size)


def divide(size: tuple[int, int], patch: int, what: str) -> tuple[int, int]:
    """The grid. Raises: ValueError if patches do not tile."""
    if size[0] % patch or size[1] % patch:
        raise ValueError(f"patch {patch} does not divide {what}: choose another patch in arch, or another image_size")
    return size[0] // patch, size[1] // patch


def check_images(images: Tensor, image_size: tuple[int, int]) -> None:
    """Raises: ValueError for a batch of another size, which would meet the wrong positions."""
    if images.shape[1:] != (3, *image_size):
        raise ValueError(
            f"images of shape {tuple(images.shape[1:])} met a network built for {(3, *image_size)}: "
            "set image_size to the size of the data"
        )
