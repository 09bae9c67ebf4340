"""The cost of a network in closed form: what a forward pass and a training run multiply.

Counted are the multiply-accumulates (MACs) of matrix products and convolutions: stem, projections, attention, MLP and
head. Not counted is what is small beside them: norms, softmax, activations, additions, pooling, weight standardisation.

Source: ViT paper, Table 6, whose column of exaFLOPs this arithmetic reproduces: 2 FLOPs per MAC, a backward pass that
costs two forward passes, and no count for multiplications with the zeros of a padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

FLOPS_PER_MAC = 2
PASSES = 3  # one forward, and a backward that costs two

_PREFIXES = {"cls": 1, "gap": 0, "map": 0}
_PROBES = {"cls": False, "gap": False, "map": True}
_RELATIVE = {"none": False, "1d": False, "2d": False, "relative": True, "sincos2d": False, "rope": False}
_PATTERNS = ("full", "local", "axial")
_TANH = {"linear": False, "tanh": True}


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
    prefix: int = 1
    """P, tokens in front of the patches"""
    relative: bool = False
    """whether each query also meets a vector per offset"""
    attention: str = "full"
    """who attends to whom: full, local (a window of patches, and the prefix), axial (row, then column: two halves)"""
    window: int = 0
    """patches along each side of a local window"""
    probe: bool = False
    """whether attention pooling, with its own MLP, reads the tokens"""
    tanh_head: bool = False
    """whether a hidden layer of width D comes before the head"""
    resnet_blocks: tuple[int, ...] | None = None
    """bottlenecks per stage; () is the root alone, None no ResNet at all"""
    resnet_width: float = 1
    """factor on every channel count of the ResNet"""


def sizes_of(values: Mapping[str, Any]) -> Sizes:
    """Sizes from a mapping in the words of the model's options; names it does not know are passed over.

    Read are `pos_embed`, `pool`, `attention`, `head` as words and the fields of Sizes as they are.
    Raises: ValueError for a word whose cost has no formula here.
    """
    known = {field.name: values[field.name] for field in fields(Sizes) if field.name in values}
    if "pool" in values:
        known["prefix"] = _lookup("pool", values["pool"], _PREFIXES)
        known["probe"] = _lookup("pool", values["pool"], _PROBES)
    if "pos_embed" in values:
        known["relative"] = _lookup("pos_embed", values["pos_embed"], _RELATIVE)
    if "attention" in values:
        known["attention"] = _lookup("attention", values["attention"], {word: word for word in _PATTERNS})
    if "head" in values:
        known["tanh_head"] = _lookup("head", values["head"], _TANH)
    return Sizes(**known)


def train_flops(sizes: Sizes, images: int) -> float:
    """FLOPs of training on so many images, repeats included."""
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
    return macs + sizes.tanh_head * readout**2 + readout * sizes.classes


def _encoder(sizes: Sizes, maps: tuple[int, int], channels: int, as_computed: bool) -> int:
    patch, width = sizes.feature_patch, sizes.width
    grid = (maps[0] // patch, maps[1] // patch)
    patches = grid[0] * grid[1]
    tokens = sizes.prefix + patches
    halves = 2 if sizes.attention == "axial" else 1  # each half has projections and an MLP of its own
    projections = 4 * tokens * width**2
    mlp = 2 * tokens * width * sizes.mlp_width
    pairs = _pairs(sizes, grid, as_computed)
    offsets = (tokens * (2 * tokens - 1) if as_computed else pairs) if sizes.relative else 0
    layer = halves * (projections + mlp) + (2 * pairs + offsets) * width
    readout = _probe(tokens, width, sizes.mlp_width) if sizes.probe else 0
    return patches * channels * patch**2 * width + sizes.depth * layer + readout


def _pairs(sizes: Sizes, grid: tuple[int, int], as_computed: bool) -> int:
    """Pairs of a query and a key in one layer."""
    (rows, columns), prefix = grid, sizes.prefix
    patches = rows * columns
    if sizes.attention == "axial":
        return patches * (columns + rows)
    if sizes.attention == "local" and not as_computed:
        near = _near(rows, sizes.window) * _near(columns, sizes.window)
        return near + 2 * patches * prefix + prefix**2
    return (prefix + patches) ** 2


def _near(length: int, window: int) -> int:
    """Pairs of places along one side that are within half a window of each other."""
    reach = window // 2
    return sum(min(place + reach, length - 1) - max(place - reach, 0) + 1 for place in range(length))


def _probe(tokens: int, width: int, mlp_width: int) -> int:
    """Attention pooling: one query, keys and values of all tokens, an output, and an MLP over one vector."""
    return 2 * width**2 + 2 * tokens * width**2 + 2 * tokens * width + 2 * width * mlp_width


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


def _lookup(option: str, word: str, costs: Mapping[str, Any]) -> Any:
    if word not in costs:
        raise ValueError(
            f"the cost of {option} {word!r} has no formula in eval/flops.py, which knows {', '.join(costs)}"
        )
    return costs[word]
