"""Which network a weights file holds: from its own words where it is a file of ours, or else from names and shapes.

Names and shapes do not tell everything. The heads of a timm or torchvision file are those of the body with these sizes,
as in every published one; what no convention settles, such as fixed positions or none, must be stated.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from torch import Tensor

from vitexp.nn.arch import BODIES, HYBRIDS, RESNETS, parse_arch
from vitexp.nn.config import Resnet
from vitexp.nn.vit import ViTConfig, resolve
from vitexp.weights import google as weights_npz
from vitexp.weights import parts as weights_parts
from vitexp.weights import ports as weights_ports
from vitexp.weights import resnet as weights_resnet
from vitexp.weights import timm as weights_timm
from vitexp.weights.find import FORMS, Network, choose
from vitexp.weights.read import Stored

Sizes = tuple[int, int, int, int | None]
"""Width, depth, MLP width and heads, the last where it is known."""

# The root's kernel, the first kernel of each unit in a stage, and the head's bias.
_RESNET_NAMES = {
    "preact": (weights_resnet.BIT_MARKER, r"block{}/unit(\d+)/a/standardized_conv2d/kernel", "head/conv2d/bias"),
    "postact": (weights_resnet.POSTACT_MARKER, r"block{}/unit(\d+)/conv1/kernel", "head/bias"),
}
_GELUS = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu_tanh": "tanh"}
"""Hugging Face's and timm's words for it."""


class Names(NamedTuple):
    """Where a program keeps what tells a network's sizes."""

    kernel: str
    hidden: str
    layers: str
    table: str
    cls: str
    head: str
    probe: str = ""
    pre_logits: str = ""


_NAMES = {
    "timm": Names(
        weights_timm.MARKER, "blocks.0.mlp.fc1.weight", r"blocks\.(\d+)\..*", "pos_embed", "cls_token", "head.weight",
        "attn_pool.latent",
    ),
    "hf": Names(
        weights_ports.HF_MARKER, "encoder.layer.0.intermediate.dense.weight", r"encoder\.layer\.(\d+)\..*",
        "embeddings.position_embeddings", "embeddings.cls_token", "classifier.weight", "", "pooler.dense.weight",
    ),
    "torchvision": Names(
        "conv_proj.weight", "encoder.layers.encoder_layer_0.mlp.0.weight", r"encoder\.layers\.encoder_layer_(\d+)\..*",
        "encoder.pos_embedding", "class_token", "heads.head.weight", "", "heads.pre_logits.weight",
    ),
}  # fmt: skip


def config_of(
    stored: Stored,
    source: str,
    image_size: int | tuple[int, int] | None = None,
    stated: Mapping[str, str] | None = None,
) -> ViTConfig:
    """The config of the network that the file was made from, at `image_size` if that is given.

    `stated` are a person's words (arch, pos_embed, gelu) for what the file does not say itself.
    Raises: ValueError for weights of no network that this project can build, and for what must be stated and is not.
    """
    stated = stated or {}
    try:
        if stored.config is not None:
            config = _own(stored.config, source)
        else:
            config = _inferred(stored, source, image_size, stated)
    except (TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{source} does not say in known words and shapes which network it holds ({error})") from error
    try:
        return resolve(config if image_size is None else replace(config, image_size=image_size))
    except ValueError as error:
        raise ValueError(f"{source} cannot be a network of these words: {error}") from error


def gelu_of(stored: Stored, source: str) -> str | None:
    """The GELU of the network: by its own words, by config.json beside it, or by the convention of these names.

    Nothing says it of our own names without a config. Raises: ValueError for another activation.
    """
    if stored.config is not None:
        return str(stored.config.get("gelu", "tanh"))
    if stored.beside and (words := _activation(stored.beside)):
        if words not in _GELUS:
            raise ValueError(f"{source} is a network with activation {words}, by its config.json: only GELU is there")
        return _GELUS[words]
    form = choose(stored.tensors, source).form
    return {"google": "tanh", "timm": "exact", "hf": "exact", "torchvision": "exact"}.get(form)


def check_gelu(stored: Stored, config: ViTConfig) -> None:
    """Raises: ValueError where the file's network has another GELU than the one to be filled."""
    held = gelu_of(stored, stored.name)
    if held not in (None, config.gelu):
        raise ValueError(f"{stored.name} holds a network of gelu {held}, and this one has gelu {config.gelu}")


def _activation(beside: Mapping[str, Any]) -> str | None:
    """Hugging Face's word, or timm's, whose networks have exact GELU unless their arguments or their name say more."""
    arguments = beside.get("model_args")
    if isinstance(arguments, Mapping) and "act_layer" in arguments:
        return str(arguments["act_layer"])
    if "hidden_act" in beside:
        return str(beside["hidden_act"])
    return "quickgelu" if "quickgelu" in str(beside.get("architecture", "")) else None


def _heads(beside: Mapping[str, Any]) -> int | None:
    """Hugging Face's number of heads, or timm's where its arguments say one."""
    arguments = beside.get("model_args")
    heads = arguments.get("num_heads") if isinstance(arguments, Mapping) else beside.get("num_attention_heads")
    return heads if _is_a(heads, int) else None


def _own(kept: Mapping[str, Any], source: str) -> ViTConfig:
    """Fields that this version does not know belong to training, or to a later version."""
    if not isinstance(kept, Mapping) or "arch" not in kept:
        raise ValueError(f"{source} does not say which network it holds, although it is a file of vitexp")
    words: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
    kinds = get_type_hints(ViTConfig)
    for name, kind in kinds.items():
        if name in words and not _is_a(words[name], kind):
            raise ValueError(f"{source} says that its network has {name} {words[name]!r}, which cannot be")
    return ViTConfig(**{name: value for name, value in words.items() if name in kinds})


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a word from a file is of the type that the config has there."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and len(value) == 2 and all(_is_a(part, int) for part in value)
    if not isinstance(kind, type):  # a union
        return any(_is_a(value, one) for one in get_args(kind))
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _inferred(stored: Stored, source: str, image_size: Any, stated: Mapping[str, str]) -> ViTConfig:
    network = choose(stored.tensors, source)
    if network.form == "google":
        config = _of_google(weights_npz.in_first_dialect(network.tensors), source, image_size, stated)
    elif network.form in _NAMES:
        config = _of_port(network, source, image_size, stated, _heads(stored.beside or {}))
    elif network.form == "bit":
        return _of_resnet(weights_resnet.in_one_spelling(network.tensors), "preact", source, image_size)
    elif network.form == "google resnet":
        return _of_resnet(weights_npz.in_first_dialect(network.tensors), "postact", source, image_size)
    else:
        held = f"the weights of a {'ResNet' if FORMS[network.form].resnet else 'ViT'}"
        raise ValueError(
            f"{source} does not say which network it holds: {held} by the names of {FORMS[network.form].words}, "
            "without a config; give the checkpoint, or a .safetensors that `vitexp export` wrote"
        )
    said = network.form == "google" or _activation(stored.beside or {})
    gelu: Any = gelu_of(stored, source) if said else stated.get("gelu", "exact")
    return replace(config, gelu=gelu)


def _of_google(arrays: Mapping[str, Tensor], source: str, image_size: Any, stated: Mapping[str, str]) -> ViTConfig:
    layer = "Transformer/encoderblock_0/"
    query = arrays.get(f"{layer}MultiHeadDotProductAttention_1/query/kernel")
    hidden, kernel = arrays.get(f"{layer}MlpBlock_3/Dense_0/kernel"), arrays[weights_npz.MARKER]
    if query is None or hidden is None or query.ndim != 3:
        raise ValueError(f"{source} holds no layers of a Vision Transformer")
    depth = _count(arrays, r"Transformer/encoderblock_(\d+)/.*")
    sizes = (query.shape[0], depth, hidden.shape[1], query.shape[1])
    units = [_count(arrays, rf"block{stage}/unit(\d+)/conv1/kernel") for stage in range(1, 5)]
    blocks = tuple(filter(None, units)) if "conv_root/kernel" in arrays else None
    arch = _arch(sizes, kernel.shape[0], blocks, source, stated)
    table, has_cls = arrays.get("Transformer/posembed_input/pos_embedding"), "cls" in arrays
    head = arrays.get("head/kernel")
    return ViTConfig(
        arch=arch,
        image_size=image_size or _image_size(table, has_cls, arch, source),
        classes=1 if head is None else head.shape[1],
        pos_embed=_positions(table, source, stated),
        pool="map" if "MAPHead_0/probe" in arrays else "cls" if has_cls else "gap",
        head="tanh" if "pre_logits/kernel" in arrays else "linear",
    )


def _of_port(network: Network, source: str, image_size: Any, stated: Mapping[str, str], heads: int | None) -> ViTConfig:
    state, names = weights_parts.plain(network.tensors, source)[0], _NAMES[network.form]
    kernel, hidden = state.get(names.kernel), state.get(names.hidden)
    if kernel is None or hidden is None:
        raise ValueError(
            f"{source} holds no layers of a Vision Transformer by the names of {FORMS[network.form].words}"
        )
    sizes = (kernel.shape[0], _count(state, names.layers), hidden.shape[0], heads)
    stage = r"patch_embed\.backbone\.stages\.{0}\.blocks\.(\d+)\.conv1\.weight"
    units = [_count(state, stage.format(number)) for number in range(4)]
    hybrid = any(name.startswith("patch_embed.backbone.") for name in state)
    arch = _arch(sizes, kernel.shape[-1], tuple(filter(None, units)) if hybrid else None, source, stated)
    table, has_cls, head = state.get(names.table), names.cls in state, state.get(names.head)
    if table is not None and has_cls and _side(table.shape[-2]) and not _side(table.shape[-2] - 1):
        has_row = False  # a table for patches alone
    else:
        has_row = has_cls
    return ViTConfig(
        arch=arch,
        image_size=image_size or _image_size(table, has_row, arch, source),
        classes=1 if head is None else head.shape[0],
        pos_embed=_positions(table, source, stated),
        pool="map" if names.probe in state else "cls" if has_cls else "gap",
        head="tanh" if names.pre_logits in state else "linear",
    )


def _positions(table: Tensor | None, source: str, stated: Mapping[str, str]) -> str:
    """Raises: ValueError where fixed positions and none look the same, and it is not stated which."""
    if table is not None:
        return "1d"
    words = stated.get("pos_embed")
    if words not in ("sincos2d", "none"):
        raise ValueError(
            f"{source} has no position table, so it does not say whether its network adds fixed sines (sincos2d) or "
            "nothing (none): state it with --pos-embed sincos2d or none, or in a training run with --model.pos_embed"
        )
    return words


def _of_resnet(arrays: Mapping[str, Tensor], order: Resnet, source: str, image_size: Any) -> ViTConfig:
    """A ResNet takes images of any size; where none is given it is the one that they are trained at."""
    root, unit, head = _RESNET_NAMES[order]
    units = tuple(filter(None, (_count(arrays, unit.format(stage)) for stage in range(1, 5))))
    layers = next((layers for layers, blocks in RESNETS.items() if blocks == units), None)
    if layers is None:
        raise ValueError(f"{source} holds a ResNet with {units} units per stage, which has no name here")
    classes = len(arrays[head]) if head in arrays else 1
    width = arrays[root].shape[-1] / 64
    return ViTConfig(arch=f"R{layers}x{width:g}", image_size=image_size or 224, classes=classes, resnet=order)


def _arch(sizes: Sizes, patch: int, blocks: tuple[int, ...] | None, source: str, stated: Mapping[str, str]) -> str:
    """The name of the sizes: the stated one where it fits, or else the body known by them. Raises: ValueError."""
    if not patch:
        raise ValueError(f"{source} holds a patch embedding of no pixels")
    if (words := stated.get("arch")) and _fits(sizes, parse_arch(words)):
        bodies = [words.rpartition("+")[2].partition("/")[0]]
    else:
        bodies = [name for name, body in BODIES.items() if _fits(sizes, body)]
    if not bodies and sizes[3]:
        bodies = ["w{}d{}m{}h{}".format(*sizes)]
    if not bodies:
        raise ValueError(
            f"{source} holds a network of width {sizes[0]}, depth {sizes[1]} and MLP width {sizes[2]}, which has no "
            f"name here and does not say its heads: state them with --arch w{sizes[0]}d{sizes[1]}m{sizes[2]}hHEADS/"
            f"{patch}, or in a training run with --model.arch"
        )
    if blocks is None:
        return f"{bodies[0]}/{patch}"
    for hybrid in HYBRIDS.values():
        for stride, known in hybrid.blocks.items():
            if known == blocks and hybrid.feature_patch == patch:
                return f"{hybrid.prefix}+{bodies[0]}/{stride}"
    raise ValueError(f"{source} holds a hybrid with {blocks} units per stage, which has no name here")


def _fits(sizes: Sizes, body: Any) -> bool:
    own = (body.width, body.depth, body.mlp_width, body.heads)
    return all(wanted in (None, size) for wanted, size in zip(sizes, own, strict=True))


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
