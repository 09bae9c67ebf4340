"""The cost of a network in closed form: what a forward pass and a training run multiply.

Counted are the multiply-accumulates (MACs) of matrix products and convolutions: stem, projections, attention, MLP and
head. Not counted is what is small beside them: norms, softmax, activations, additions, pooling, weight standardisation.

Source: ViT paper, Table 6, whose column of exaFLOPs this arithmetic reproduces: 2 FLOPs per MAC, a backward pass that
costs two forward passes, and no count for multiplications with the zeros of a padding.
"""

import functools
import json
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vitexp import axes
from vitexp.nn.arch import Arch, parse_arch
from vitexp.nn.attention import LAYERS
from vitexp.nn.config import ViTConfig, network_config, pair
from vitexp.nn.mlp import MLPS
from vitexp.nn.norm import NORMS
from vitexp.nn.patch_dropout import kept
from vitexp.nn.pool import POOLS
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.pos_join import JOINS
from vitexp.nn.position import Layout
from vitexp.nn.resnet_axial import AxialUnit
from vitexp.nn.table import TABLES, settled
from vitexp.nn.vit import build
from vitexp.own import failing

FLOPS_PER_MAC = 2
PASSES = 3  # one forward, and a backward that costs two


def train_flops(config: ViTConfig, images: int) -> float:
    """FLOPs of training a network of this config on `images` images, counting an image again in each epoch.

    A multiply-add counts as 2, a backward pass as two forward passes: the forward pass of one image costs a third.
    Patches that patch dropout leaves out cost nothing after the stem.

    >>> f"{train_flops(ViTConfig(arch='B/16'), images=1) / 3:.4g}"
    '3.513e+10'

    Raises: ValueError for an axis value whose cost is not known. Source: ViT paper, Table 6.
    """
    return float(FLOPS_PER_MAC * PASSES * forward_macs(config, in_training=True) * images)


def forward_macs(config: ViTConfig, *, as_computed: bool = False, in_training: bool = False) -> int:
    """MACs of one image's forward pass; `in_training` without the patches that patch dropout leaves out.

    `as_computed` adds what dense kernels multiply in vain: zeros of a padding, offsets from a query to no token, and
    keys that a local window hides.
    """
    for axis in ("pos_embed", "pool", "attention", "head", MLPS.axis, NORMS.axis):
        axes.check(axis, getattr(config, axis))
    mine = [f"{axis} {getattr(config, axis)}" for axis in TABLES if axes.is_path(getattr(config, axis, None))]
    with failing(f"counting what {' and '.join(mine)} multiplies") if mine else nullcontext():
        return int(_forward_macs(config, as_computed, in_training))


def _forward_macs(config: ViTConfig, as_computed: bool, in_training: bool) -> int:
    if (plain := _without_own(config)) is not None:
        more = counted_macs(settled(config), in_training) - counted_macs(settled(plain), in_training)
        return forward_macs(plain, as_computed=as_computed, in_training=in_training) + more
    arch, maps = parse_arch(config.arch, config.stem), pair(config.image_size)
    macs, channels = 0, 3
    if arch.resnet_blocks is not None:
        macs, maps, channels = _trunk(maps, arch, config.resnet == "axial", as_computed)
    for out in arch.convolutions:
        macs += _convolution(maps, 3, 2, channels * out, as_computed)
        maps, channels = _strided(maps, 2), out
    if arch.width:
        macs += _encoder(config, arch, maps, channels, as_computed, in_training)
    readout = arch.width or channels
    return macs + (config.head == "tanh") * readout**2 + readout * config.classes


def _without_own(config: ViTConfig) -> ViTConfig | None:
    """The network with a built-in part in place of each of the user's own that has no formula; None where all have."""
    chosen = {axis: table for axis, table in TABLES.items() if axes.is_path(getattr(config, axis, None))}
    counted = [axis for axis, table in chosen.items() if not table.has_formula(getattr(config, axis))]
    kept = {axis: options for axis, options in config.options.items() if axis not in counted}
    words: dict[str, Any] = {axis: TABLES[axis].plain for axis in counted}
    return replace(config, **words, options=kept, sources={}) if counted else None


def counted_macs(config: ViTConfig, in_training: bool = False) -> int:
    """MACs of one image's forward pass as torch's counter sees them, of a network without weights where that works."""
    return _counted(json.dumps(vars(network_config(config))), in_training)


@functools.cache
def _counted(words: str, in_training: bool) -> int:
    config = ViTConfig(**json.loads(words))
    for device in ("meta", "cpu"):
        with torch.device(device), torch.no_grad():
            network, images = build(config).train(in_training), torch.zeros(1, 3, *pair(config.image_size))
            try:
                with FlopCounterMode(display=False) as counter:
                    network(images)
                return int(counter.get_total_flops()) // FLOPS_PER_MAC
            except (RuntimeError, NotImplementedError):
                if device == "cpu":
                    raise
    raise AssertionError("one of both devices has returned or raised")


def _encoder(
    config: ViTConfig, arch: Arch, maps: tuple[int, int], channels: int, as_computed: bool, in_training: bool
) -> int:
    patch, width = arch.feature_patch, arch.width
    pool, position, attention = POOLS[config.pool], POSITIONS[config.pos_embed], LAYERS[config.attention]
    grid = (maps[0] // patch, maps[1] // patch)
    once = grid[0] * grid[1] * channels * patch**2 * width
    if in_training and config.patch_dropout:
        grid = (1, kept(grid[0] * grid[1], config.patch_dropout))
    placed = Layout(grid=grid, prefix=pool.prefix, width=width, heads=arch.heads, depth=arch.depth)
    once += JOINS[config.pos_join].macs(placed)
    layout = replace(placed, prefix=placed.prefix + config.registers)
    dense = layout.tokens * (4 * width**2 + MLPS[config.mlp].macs(width, arch.mlp_width))
    pairs, between = (attention.pairs(some, config.window, as_computed=as_computed) for some in (layout, placed))
    layer = attention.halves * dense + 2 * pairs * width + position.macs(placed, between, as_computed=as_computed)
    return once + arch.depth * layer + pool.macs(placed, arch.mlp_width)


def _trunk(size: tuple[int, int], arch: Arch, axial: bool, as_computed: bool) -> tuple[int, tuple[int, int], int]:
    """MACs, size of the maps, and channels after root and stages."""
    channels = width = int(64 * arch.resnet_width)
    macs = _convolution(size, 7, 2, 3 * channels, as_computed)
    size = _strided(_strided(size, 2), 2)  # the root's convolution and its pooling
    for stage, units in enumerate(arch.resnet_blocks or ()):
        middle = width * 2**stage
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            out = _strided(size, stride)
            macs += size[0] * size[1] * channels * middle
            convolved = _convolution(size, 3, stride, middle**2, as_computed)
            macs += AxialUnit.spatial_macs(size, middle) if axial else convolved
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
