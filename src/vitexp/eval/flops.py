"""The cost of a network in closed form: what a forward pass and a training run multiply.

Counted are the multiply-accumulates (MACs) of matrix products and convolutions: stem, projections, attention, MLP and
head. Not counted is what is small beside them: norms, softmax, activations, additions, pooling, weight standardisation.

Source: ViT paper, Table 6, whose column of exaFLOPs this arithmetic reproduces: 2 FLOPs per MAC, a backward pass that
costs two forward passes, and no count for multiplications with the zeros of a padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vitexp import axes
from vitexp.nn.attention import LAYERS
from vitexp.nn.pool import POOLS
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.position import Layout

FLOPS_PER_MAC = 2
PASSES = 3  # one forward, and a backward that costs two


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A network in plain numbers. Without an encoder (width 0) it is a ResNet whose pooled features meet the head."""

    image_size: tuple[int, int] | int
    """rows and columns in pixels, or one number for a square"""
    classes: int
    """outputs of the head"""
    width: int = 0
    """D"""
    depth: int = 0
    """encoder layers"""
    mlp_width: int = 0
    """hidden width of the MLP"""
    feature_patch: int = 1
    """patch that is really cut: in pixels, or in positions of the ResNet's maps"""
    heads: int = 1
    """H"""
    pos_embed: str = "none"
    """position embedding, as an axis word"""
    pool: str = "cls"
    """readout, as an axis word"""
    attention: str = "full"
    """who attends to whom, as an axis word"""
    window: int = 0
    """patches along each side of a local window"""
    head: str = "linear"
    """head, as an axis word: tanh has a hidden layer of width D"""
    resnet_blocks: tuple[int, ...] | None = None
    """bottlenecks per stage; () is the root alone, None no ResNet at all"""
    resnet_width: float = 1
    """factor on every channel count of the ResNet"""


def sizes_of(values: Mapping[str, Any]) -> Sizes:
    """Sizes from a mapping in the words of the model's options; names that it does not know are passed over.

    Raises: ValueError for a word that no axis has.
    """
    known = {field.name: values[field.name] for field in fields(Sizes) if field.name in values}
    for axis in known.keys() & {"pos_embed", "pool", "attention", "head"}:
        axes.check(axis, known[axis])
    return Sizes(**known)


def train_flops(sizes: Sizes, images: int) -> float:
    """FLOPs of training on this many images, repeats included."""
    return float(FLOPS_PER_MAC * PASSES * forward_macs(sizes) * images)


def forward_macs(sizes: Sizes, *, as_computed: bool = False) -> int:
    """MACs of one image's forward pass.

    `as_computed` adds what dense kernels multiply in vain: zeros of a padding, offsets from a query to no token, and
    keys that a local window hides.
    """
    maps = sizes.image_size if isinstance(sizes.image_size, tuple) else (sizes.image_size, sizes.image_size)
    macs, channels = 0, 3
    if sizes.resnet_blocks is not None:
        macs, maps, channels = _trunk(maps, sizes.resnet_blocks, sizes.resnet_width, as_computed)
    if sizes.width:
        macs += _encoder(sizes, maps, channels, as_computed)
    readout = sizes.width or channels
    return macs + (sizes.head == "tanh") * readout**2 + readout * sizes.classes


def _encoder(sizes: Sizes, maps: tuple[int, int], channels: int, as_computed: bool) -> int:
    patch, width = sizes.feature_patch, sizes.width
    grid = (maps[0] // patch, maps[1] // patch)
    pool, position, attention = POOLS[sizes.pool], POSITIONS[sizes.pos_embed], LAYERS[sizes.attention]
    layout = Layout(grid=grid, prefix=pool.prefix, width=width, heads=sizes.heads, depth=sizes.depth)
    dense = 4 * layout.tokens * width**2 + 2 * layout.tokens * width * sizes.mlp_width
    pairs = attention.pairs(layout, sizes.window, as_computed=as_computed)
    layer = attention.halves * dense + 2 * pairs * width + position.macs(layout, pairs, as_computed=as_computed)
    return layout.patches * channels * patch**2 * width + sizes.depth * layer + pool.macs(layout, sizes.mlp_width)


def _trunk(
    size: tuple[int, int], blocks: tuple[int, ...], factor: float, as_computed: bool
) -> tuple[int, tuple[int, int], int]:
    """MACs, size of the maps, and channels after root and stages."""
    channels = int(64 * factor)
    macs = _convolution(size, 7, 2, 3 * channels, as_computed)
    size = _strided(_strided(size, 2), 2)  # the root's convolution and its pooling
    for stage, units in enumerate(blocks):
        middle = int(64 * factor) * 2**stage
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            out = _strided(size, stride)
            macs += size[0] * size[1] * channels * middle
            macs += _convolution(size, 3, stride, middle**2, as_computed)
            macs += out[0] * out[1] * 4 * middle * (middle if unit else middle + channels)
            size, channels = out, 4 * middle
    return macs, size, channels


def _convolution(size: tuple[int, int], kernel: int, stride: int, channel_pairs: int, as_computed: bool) -> int:
    rows, columns = (_taps(length, kernel, stride, as_computed) for length in size)
    return rows * columns * channel_pairs


def _taps(length: int, kernel: int, stride: int, as_computed: bool) -> int:
    """Pairs of an output and a kernel entry along one side; those that meet padding ("SAME") count only as computed."""
    outputs = -(-length // stride)
    before = max((outputs - 1) * stride + kernel - length, 0) // 2
    starts = range(-before, -before + outputs * stride, stride)
    if as_computed:
        return outputs * kernel
    return sum(min(start + kernel, length) - max(start, 0) for start in starts)


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)
