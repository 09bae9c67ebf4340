"""Which network a weights file holds: from its own words where it is a file of ours, or else from names and shapes.

Names and shapes do not tell everything: timm's files do not say how many heads there are, so the heads are those of
the body with these sizes.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from vitexp.nn import weights_npz, weights_resnet, weights_timm
from vitexp.nn.arch import BODIES, HYBRIDS, RESNETS, parse_arch
from vitexp.nn.config import Resnet
from vitexp.nn.vit import ViTConfig, resolve
from vitexp.nn.weights import TORCH_PREFIXES, Stored, under_prefix

Sizes = tuple[int, int, int, int | None]
"""Width, depth, MLP width and heads, the last where it is known."""

# The root's kernel, the first kernel of each unit in a stage, and the head's bias.
_RESNET_NAMES = {
    "preact": (weights_resnet.BIT_MARKER, r"block{}/unit(\d+)/a/standardized_conv2d/kernel", "head/conv2d/bias"),
    "postact": (weights_resnet.POSTACT_MARKER, r"block{}/unit(\d+)/conv1/kernel", "head/bias"),
}


def config_of(stored: Stored, source: str, image_size: int | None = None) -> ViTConfig:
    """The config of the network that the file was made from, at `image_size` if that is given.

    Raises: ValueError for weights of no network that this project can build.
    """
    config = _own(stored.config, source) if stored.config is not None else _inferred(stored.tensors, source, image_size)
    return resolve(config if image_size is None else replace(config, image_size=image_size))


def _own(kept: Mapping[str, Any], source: str) -> ViTConfig:
    """Fields that this version does not know belong to training, or to a later version."""
    if not isinstance(kept, Mapping) or "arch" not in kept:
        raise ValueError(f"{source} does not say which network it holds, although it is a file of vitexp")
    known = {field.name for field in fields(ViTConfig)}
    words: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in kept.items() if name in known
    }
    return ViTConfig(**words)


def _inferred(tensors: Mapping[str, Tensor], source: str, image_size: int | None) -> ViTConfig:
    if (google := under_prefix(tensors, weights_npz.MARKER, weights_npz.PREFIXES)) is not None:
        return _of_google(weights_npz.in_first_dialect(google), source, image_size)
    if (timm := under_prefix(tensors, weights_timm.MARKER, TORCH_PREFIXES)) is not None:
        return _of_timm(timm, source, image_size)
    spelled = weights_resnet.in_one_spelling(tensors)
    if (bit := under_prefix(spelled, weights_resnet.BIT_MARKER, weights_resnet.BIT_PREFIXES)) is not None:
        return _of_resnet(bit, "preact", source, image_size)
    if (later := under_prefix(tensors, weights_resnet.POSTACT_MARKER, weights_npz.PREFIXES)) is not None:
        return _of_resnet(later, "postact", source, image_size)
    raise ValueError(f"{source} does not say which network it holds: no file of vitexp, of timm or of Google's code")


def _of_google(arrays: Mapping[str, Tensor], source: str, image_size: int | None) -> ViTConfig:
    layer = "Transformer/encoderblock_0/"
    query = arrays.get(f"{layer}MultiHeadDotProductAttention_1/query/kernel")
    hidden, kernel = arrays.get(f"{layer}MlpBlock_3/Dense_0/kernel"), arrays[weights_npz.MARKER]
    if query is None or hidden is None or query.ndim != 3:
        raise ValueError(f"{source} holds no layers of a Vision Transformer")
    depth = _count(arrays, r"Transformer/encoderblock_(\d+)/.*")
    sizes = (query.shape[0], depth, hidden.shape[1], query.shape[1])
    units = [_count(arrays, rf"block{stage}/unit(\d+)/conv1/kernel") for stage in range(1, 5)]
    blocks = tuple(filter(None, units)) if "conv_root/kernel" in arrays else None
    arch = _arch(sizes, kernel.shape[0], blocks, source)
    table, has_cls = arrays.get("Transformer/posembed_input/pos_embedding"), "cls" in arrays
    head = arrays.get("head/kernel")
    return ViTConfig(
        arch=arch,
        image_size=image_size or _image_size(table, has_cls, arch, source),
        classes=1 if head is None else head.shape[1],
        pos_embed="none" if table is None else "1d",
        pool="map" if "MAPHead_0/probe" in arrays else "cls" if has_cls else "gap",
        head="tanh" if "pre_logits/kernel" in arrays else "linear",
    )


def _of_timm(state: Mapping[str, Tensor], source: str, image_size: int | None) -> ViTConfig:
    kernel, hidden = state[weights_timm.MARKER], state.get("blocks.0.mlp.fc1.weight")
    if hidden is None:
        raise ValueError(f"{source} holds no layers of a Vision Transformer")
    sizes = (kernel.shape[0], _count(state, r"blocks\.(\d+)\..*"), hidden.shape[0], None)
    stage = r"patch_embed\.backbone\.stages\.{0}\.blocks\.(\d+)\.conv1\.weight"
    units = [_count(state, stage.format(number)) for number in range(4)]
    hybrid = any(name.startswith("patch_embed.backbone.") for name in state)
    arch = _arch(sizes, kernel.shape[-1], tuple(filter(None, units)) if hybrid else None, source)
    table, has_cls, head = state.get("pos_embed"), "cls_token" in state, state.get("head.weight")
    if table is not None and has_cls and _side(table.shape[-2]) and not _side(table.shape[-2] - 1):
        has_row = False  # a table for patches alone
    else:
        has_row = has_cls
    return ViTConfig(
        arch=arch,
        image_size=image_size or _image_size(table, has_row, arch, source),
        classes=1 if head is None else head.shape[0],
        pos_embed="none" if table is None else "1d",
        pool="map" if "attn_pool.latent" in state else "cls" if has_cls else "gap",
    )


def _of_resnet(arrays: Mapping[str, Tensor], order: Resnet, source: str, image_size: int | None) -> ViTConfig:
    """A ResNet takes images of any size; where none is given it is the one that they are trained at."""
    root, unit, head = _RESNET_NAMES[order]
    units = tuple(filter(None, (_count(arrays, unit.format(stage)) for stage in range(1, 5))))
    layers = next((layers for layers, blocks in RESNETS.items() if blocks == units), None)
    if layers is None:
        raise ValueError(f"{source} holds a ResNet with {units} units per stage, which has no name here")
    classes = len(arrays[head]) if head in arrays else 1
    width = arrays[root].shape[-1] / 64
    return ViTConfig(arch=f"R{layers}x{width:g}", image_size=image_size or 224, classes=classes, resnet=order)


def _arch(sizes: Sizes, patch: int, blocks: tuple[int, ...] | None, source: str) -> str:
    """The name of the sizes. Raises: ValueError where there is none."""
    bodies = [name for name, body in BODIES.items() if _fits(sizes, tuple(vars(body).values()))]
    if not bodies:
        words = "width {}, depth {}, MLP width {}, heads {}".format(*(size or "unknown" for size in sizes))
        raise ValueError(f"{source} holds a network of {words}, which has no name here; known are {', '.join(BODIES)}")
    if blocks is None:
        return f"{bodies[0]}/{patch}"
    for hybrid in HYBRIDS.values():
        for stride, known in hybrid.blocks.items():
            if known == blocks and hybrid.feature_patch == patch:
                return f"{hybrid.prefix}+{bodies[0]}/{stride}"
    raise ValueError(f"{source} holds a hybrid with {blocks} units per stage, which has no name here")


def _fits(sizes: Sizes, body: tuple[int, ...]) -> bool:
    return all(wanted in (None, size) for wanted, size in zip(sizes, body, strict=True))


def _image_size(table: Tensor | None, has_row: bool, arch: str, source: str) -> int:
    """The square image whose patches the position table counts. Raises: ValueError where it counts none."""
    if table is None:
        raise ValueError(f"{source} has no position table, so it does not say its image size; give --image-size")
    parsed = parse_arch(arch)
    side = _side(table.shape[-2] - has_row)
    if not side:
        raise ValueError(f"{source} has a position table of {table.shape[-2]} rows, no square grid; give --image-size")
    return side * (32 if parsed.stem == "root" else parsed.patch)


def _side(patches: int) -> int:
    """The rows of a square grid; 0 where the patches make none."""
    side = math.isqrt(max(0, patches))
    return side if side * side == patches else 0


def _count(names: Iterable[str], pattern: str) -> int:
    return len({found[1] for name in names if (found := re.fullmatch(pattern, name))})
