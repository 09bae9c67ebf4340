"""Which network a weights file holds: from its own words where it is a file of ours, or else from names and shapes.

Names and shapes do not tell everything. The heads of a timm or torchvision file are those of the body with these sizes,
as in every published one; what no convention settles, such as fixed positions or none, must be stated.
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor

from vitexp.nn.arch import BODIES, HYBRIDS, RESNETS, parse_arch
from vitexp.nn.vit import ViTConfig, resolve
from vitexp.weights.find import Network, choose
from vitexp.weights.names import FORMS, PORTS, Entry, with_root_alone
from vitexp.weights.parts import plain
from vitexp.weights.read import Stored

_GELUS = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu_tanh": "tanh"}
"""Hugging Face's and timm's words for it."""


class _Held:
    """What a file holds, by our names and in our layouts."""

    def __init__(self, network: Network, source: str) -> None:
        self._stored = plain(network, source)[0]
        self._form = FORMS[network.form]
        if "patch_embed.backbone.conv.weight" in self._stored:
            self._form = with_root_alone(self._form)

    def _entry(self, name: str) -> Entry | None:
        try:
            entry = self._form.entry(name)
        except KeyError:
            return None
        return entry if all(theirs in self._stored for theirs in entry.theirs) else None

    def __contains__(self, name: str) -> bool:
        return self._entry(name) is not None

    def get(self, name: str) -> Tensor | None:
        entry = self._entry(name)
        return None if entry is None else entry.codec.read(*(self._stored[theirs] for theirs in entry.theirs))

    def heads(self) -> int | None:
        """Google keeps heads apart."""
        entry = self._entry("blocks.0.attention.qkv.weight")
        return self._stored[entry.theirs[0]].shape[1] if entry and self._form.norms else None

    def depth(self) -> int:
        """The layers of which there is anything."""
        start = (self._form.rows or {})["blocks.#.norm1"].theirs.partition("{}")[0]
        layers = (re.match(rf"{re.escape(start)}(\d+)[./]", name) for name in self._stored)
        return len({layer[1] for layer in layers if layer})

    def units(self, trunk: str) -> tuple[int, ...]:
        """Per stage of a trunk."""
        stages = (self._units(f"{trunk}.stages.{stage}.{{}}.conv1.weight") for stage in itertools.count())
        return tuple(itertools.takewhile(bool, stages))

    def _units(self, template: str) -> int:
        return next(unit for unit in itertools.count() if template.format(unit) not in self)


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
    except (TypeError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
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
    return FORMS[choose(stored.tensors, source).form].gelu


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
    form = FORMS[network.form]
    if form.order:
        return _of_resnet(_Held(network, source), form.order, source, image_size)
    if not form.gelu:
        raise ValueError(
            f"{source} does not say which network it holds: the weights of a {'ResNet' if form.resnet else 'ViT'} by "
            f"the names of {form.program}, without a config; give the checkpoint, or a .safetensors that `vitexp "
            "export` wrote"
        )
    beside = stored.beside or {}
    said = network.form == "google" or _activation(beside)
    gelu: Any = gelu_of(stored, source) if said else stated.get("gelu", "exact")
    return replace(_of_vit(_Held(network, source), network.form, source, image_size, stated, _heads(beside)), gelu=gelu)


def _of_vit(
    held: _Held, form: str, source: str, image_size: Any, stated: Mapping[str, str], heads: int | None
) -> ViTConfig:
    kernel, hidden = held.get("stem.embedding.weight"), held.get("blocks.0.mlp.fc1.weight")
    heads = held.heads() or heads
    if kernel is None or hidden is None or (heads is None and form == "google"):
        raise ValueError(f"{source} holds no layers of a Vision Transformer by the names of {FORMS[form].program}")
    sizes = (kernel.shape[0], held.depth(), hidden.shape[0], heads)
    units = held.units("stem.trunk") if "stem.trunk.conv_root.weight" in held else None
    arch = _arch(sizes, kernel.shape[-1], units, source, stated)
    table, has_cls, head = held.get("position.tables.0"), "pool.cls" in held, held.get("head.weight")
    return ViTConfig(
        arch=arch,
        image_size=image_size or _image_size(table, has_cls, form, arch, source),
        classes=1 if head is None else head.shape[0],
        pos_embed=_positions(table, source, stated),
        pool="map" if "pool.probe" in held else "cls" if has_cls else "gap",
        head="tanh" if "pre_logits.weight" in held else "linear",
    )


def _of_resnet(held: _Held, order: str, source: str, image_size: Any) -> ViTConfig:
    """A ResNet takes images of any size; where none is given it is the one that they are trained at."""
    units, root, bias = held.units("trunk"), held.get("trunk.conv_root.weight"), held.get("head.bias")
    layers = next((layers for layers, blocks in RESNETS.items() if blocks == units), None)
    if layers is None or root is None:
        raise ValueError(f"{source} holds a ResNet with {units} units per stage, which has no name here")
    classes = 1 if bias is None else len(bias)
    return ViTConfig(arch=f"R{layers}x{len(root) / 64:g}", image_size=image_size or 224, classes=classes, resnet=order)


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


def _arch(
    sizes: tuple[int, int, int, int | None],
    patch: int,
    blocks: tuple[int, ...] | None,
    source: str,
    stated: Mapping[str, str],
) -> str:
    """The name of the sizes: the stated one where it fits, or else the body known by them. Raises: ValueError.

    `sizes` are width, depth, MLP width and heads, the last where it is known.
    """
    if not patch:
        raise ValueError(f"{source} holds a patch embedding of no pixels")

    def fits(body: Any) -> bool:
        return sizes in [(body.width, body.depth, body.mlp_width, heads) for heads in (body.heads, None)]

    if (words := stated.get("arch")) and fits(parse_arch(words)):
        bodies = [words.rpartition("+")[2].partition("/")[0]]
    else:
        bodies = [name for name, body in BODIES.items() if fits(body)]
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


def _image_size(table: Tensor | None, has_cls: bool, form: str, arch: str, source: str) -> int:
    """The square image whose patches the position table counts. Raises: ValueError where it counts none."""
    if table is None:
        raise ValueError(f"{source} has no position table, so it does not say its image size; give --image-size")
    rows, parsed = table.shape[-2], parse_arch(arch)
    if form in PORTS and _side(rows) and not _side(rows - 1):
        has_cls = False  # a table for patches alone
    side = _side(rows - has_cls)
    if not side:
        raise ValueError(f"{source} has a position table of {rows} rows, no square grid; give --image-size")
    return side * (32 if parsed.stem == "root" else parsed.patch)


def _side(patches: int) -> int:
    """The rows of a square grid; 0 where the patches make none."""
    side = math.isqrt(max(0, patches))
    return side if side * side == patches else 0
