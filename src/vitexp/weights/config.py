"""Which network a weights file holds: from its own words where it is a file of ours, or else from names and shapes.

Names and shapes do not tell everything. The heads of a timm or torchvision file are those of the body with these sizes,
as in every published one; what no convention settles, such as fixed positions or none, must be stated.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from vitexp.nn.arch import BODIES, HYBRIDS, RESNETS, parse_arch
from vitexp.nn.mlp import swiglu_width
from vitexp.nn.vit import ViTConfig, resolve
from vitexp.own import check_allowed
from vitexp.weights.names import FORMS, PORTS
from vitexp.weights.parts import held_options, in_our_parts
from vitexp.weights.read import Network, Stored, choose

_GELUS = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu_tanh": "tanh"}
"""Hugging Face's and timm's words for it."""


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
    try:
        if stored.config is None:
            config = _inferred(stored, source, image_size, stated or {})
        else:
            config = _own(stored.config, source)
        try:
            return resolve(config if image_size is None else replace(config, image_size=image_size))
        except ValueError as error:
            raise ValueError(f"{source} cannot be a network of these words: {error}") from error
    except (TypeError, AttributeError, LookupError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{source} does not say in known words and shapes which network it holds ({error})") from error


def check_gelu(stored: Stored, config: ViTConfig) -> None:
    """Raises: ValueError where the file's network has another GELU than the one to be filled."""
    held = _gelu_of(stored, stored.name)
    if held not in (None, config.gelu):
        raise ValueError(f"{stored.name} holds a network of gelu {held}, and this one has gelu {config.gelu}")


def _gelu_of(stored: Stored, source: str) -> str | None:
    """By its own words, by config.json beside it, or by the convention of these names, where ours have none.

    Raises: ValueError for another activation.
    """
    if stored.config is not None:
        return str(stored.config.get("gelu", "tanh"))
    network = choose(stored.tensors, source)
    if held_options(network)["mlp"] != "gelu":
        return None
    if words := _activation(stored.beside or {}):
        if words not in _GELUS:
            raise ValueError(f"{source} is a network with activation {words}, by its config.json: only GELU is there")
        return _GELUS[words]
    return FORMS[network.form].gelu


def _activation(beside: Mapping[str, Any]) -> str | None:
    """Hugging Face's word, or timm's, whose networks have exact GELU unless their arguments or their name say more."""
    arguments = beside.get("model_args")
    if isinstance(arguments, Mapping) and "act_layer" in arguments:
        return str(arguments["act_layer"])
    if "hidden_act" in beside:
        return str(beside["hidden_act"])
    return "quickgelu" if "quickgelu" in str(beside.get("architecture", "")) else None


def _own(kept: Mapping[str, Any], source: str) -> ViTConfig:
    """Fields that this version does not know belong to training, or to a later version."""
    if not isinstance(kept, Mapping) or "arch" not in kept:
        raise ValueError(f"{source} does not say which network it holds, although it is a file of vitexp")
    words: dict[str, Any] = {}
    for field in (field for field in fields(ViTConfig) if field.name in kept):
        word = kept[field.name]
        if isinstance(word, str) != isinstance(field.default, str):
            raise ValueError(f"{source} says that its network has {field.name} {word!r}, which cannot be")
        words[field.name] = tuple(word) if isinstance(word, list) else word
    for name in ("options", "sources"):  # the network needs no optimizer
        words[name] = {axis: one for axis, one in dict(words.get(name) or {}).items() if hasattr(ViTConfig, axis)}
    check_allowed(words, source)
    return ViTConfig(**words)


def _inferred(stored: Stored, source: str, image_size: Any, stated: Mapping[str, str]) -> ViTConfig:
    network, beside = choose(stored.tensors, source), stored.beside or {}
    form, held = FORMS[network.form], _Held(network, source, image_size, stated)
    if form.order:
        return held.resnet()
    if not form.gelu:
        raise held.error(
            f"does not say which network it holds: names of {form.program} without a config; give the checkpoint, or a "
            ".safetensors that `vitexp export` wrote"
        )
    arguments = beside.get("model_args")  # timm's, or the word of Hugging Face
    heads = arguments.get("num_heads") if isinstance(arguments, Mapping) else beside.get("num_attention_heads")
    said = network.form == "google" or _activation(beside) or held.options["mlp"] != "gelu"
    gelu: Any = (_gelu_of(stored, source) or ViTConfig.gelu) if said else stated.get("gelu", "exact")
    return replace(held.vit(heads if isinstance(heads, int) else None), gelu=gelu, **held.options)


class _Held:
    """The network of a file by our names and in our layouts. All raise ValueError for what no network here has."""

    def __init__(self, network: Network, source: str, image_size: Any, stated: Mapping[str, str]) -> None:
        self._stored, self.options = in_our_parts(network, source)[0], held_options(network)
        self._form, self._ported = FORMS[network.form], network.form in PORTS
        self._root_alone = "patch_embed.backbone.conv.weight" in self._stored
        self._source, self._size, self._stated = source, image_size, stated

    def error(self, why: str) -> ValueError:
        """One that names the file."""
        return ValueError(f"{self._source} {why}")

    def _parts(self, name: str) -> list[Tensor]:
        """The arrays of a file that hold it; none where one of them is not there."""
        try:
            theirs = self._form.entry(name, 1, self._root_alone).theirs
        except KeyError:
            return []
        return [self._stored[part] for part in theirs] if all(part in self._stored for part in theirs) else []

    def _get(self, name: str) -> Tensor | None:
        parts = self._parts(name)
        return self._form.entry(name).codec.read(*parts) if parts else None

    def _units(self, trunk: str) -> tuple[int, ...]:
        """Per stage."""
        names = (f"{trunk}.stages.{stage}.{{}}.conv1.weight" for stage in count())
        return tuple(takewhile(bool, (next(n for n in count() if not self._parts(name.format(n))) for name in names)))

    def resnet(self) -> ViTConfig:
        """A ResNet takes images of any size; where none is given it is the one that they are trained at."""
        units, root, bias = self._units("trunk"), self._get("trunk.conv_root.weight"), self._get("head.bias")
        layers = next((layers for layers, blocks in RESNETS.items() if blocks == units), None)
        if layers is None or root is None:
            raise self.error(f"holds a ResNet with {units} units per stage, which has no name here")
        arch, classes = f"R{layers}x{len(root) / 64:g}", 1 if bias is None else len(bias)
        return ViTConfig(arch=arch, image_size=self._size or 224, classes=classes, resnet=self._form.order)

    def vit(self, heads: int | None) -> ViTConfig:
        """`heads` are known from beside the file; Google's shapes say them."""
        first = "fc1" if self.options["mlp"] == "gelu" else "up"
        kernel, hidden = self._get("stem.embedding.weight"), self._get(f"blocks.0.mlp.{first}.weight")
        if self._form.norms and (query := self._parts("blocks.0.attention.qkv.weight")):
            heads = query[0].shape[1]
        if kernel is None or hidden is None or (self._form.norms and not heads):
            raise self.error(f"holds no layers of a Vision Transformer by the names of {self._form.program}")
        table, has_cls, head = self._get("position.tables.0"), bool(self._parts("pool.cls")), self._get("head.weight")
        arch = self._arch((kernel.shape[0], self._depth(), self._mlp_width(len(hidden)), heads), kernel.shape[-1])
        return ViTConfig(
            arch=arch,
            image_size=self._size or self._image_size(table, has_cls, arch),
            classes=1 if head is None else head.shape[0],
            pos_embed=self._positions(table),
            pool="map" if self._parts("pool.probe") else "cls" if has_cls else "gap",
            head="tanh" if self._parts("pre_logits.weight") else "linear",
        )

    def _mlp_width(self, hidden: int) -> int:
        """That of the paper's MLP: of a gated one the width that it replaces."""
        if self.options["mlp"] == "gelu":
            return hidden
        known = (body.mlp_width for body in BODIES.values() if swiglu_width(body.mlp_width) == hidden)
        return next(known, hidden * 3 // 2)

    def _depth(self) -> int:
        """The layers of which there is anything."""
        start = (self._form.rows or {})["blocks.#.norm1"][1].partition("{")[0]
        layers = (re.match(rf"{re.escape(start)}(\d+)[./]", name) for name in self._stored)
        return len({layer[1] for layer in layers if layer})

    def _arch(self, sizes: tuple[int, int, int, int | None], patch: int) -> str:
        """The name of width, depth, MLP width and heads: the stated one where it fits, or else that of the body."""
        if not patch:
            raise self.error("holds a patch embedding of no pixels")

        def fits(body: Any) -> bool:
            return sizes in [(body.width, body.depth, body.mlp_width, heads) for heads in (body.heads, None)]

        if (words := self._stated.get("arch")) and fits(parse_arch(words)):
            bodies = [words.rpartition("+")[2].partition("/")[0]]
        else:
            bodies = [name for name, body in BODIES.items() if fits(body)]
        if not bodies and sizes[3]:
            bodies = ["w{}d{}m{}h{}".format(*sizes)]
        if not bodies:
            width, depth, mlp_width, _ = sizes
            raise self.error(
                f"holds a network of width {width}, depth {depth} and MLP width {mlp_width}, and not its heads: "
                f"state them with --arch, or --model.arch of a run, w{width}d{depth}m{mlp_width}hHEADS/{patch}"
            )
        hybrid = self._parts("stem.trunk.conv_root.weight")
        return self._hybrid(bodies[0], patch) if hybrid else f"{bodies[0]}/{patch}"

    def _hybrid(self, body: str, patch: int) -> str:
        units = self._units("stem.trunk")
        for hybrid in (hybrid for hybrid in HYBRIDS.values() if hybrid.feature_patch == patch):
            for stride, known in hybrid.blocks.items():
                if known == units:
                    return f"{hybrid.prefix}+{body}/{stride}"
        raise self.error(f"holds a hybrid with {units} units per stage, which has no name here")

    def _positions(self, table: Tensor | None) -> str:
        """Fixed positions and none look the same."""
        if table is not None:
            return "1d"
        words = self._stated.get("pos_embed")
        if words not in ("sincos2d", "none"):
            raise self.error(
                "has no position table, so it does not say whether its network adds fixed sines (sincos2d) or nothing "
                "(none): state it with --pos-embed sincos2d or none, or in a training run with --model.pos_embed"
            )
        return words

    def _image_size(self, table: Tensor | None, has_cls: bool, arch: str) -> int:
        """The square image whose patches the position table counts."""
        if table is None:
            raise self.error("has no position table, so it does not say its image size; give --image-size")
        rows, parsed, registers = table.shape[-2], parse_arch(arch), self.options["registers"]
        if self._ported and square_side(rows) and not square_side(rows - has_cls - registers):
            has_cls, registers = False, 0  # a table for patches alone
        side = square_side(rows - has_cls - registers)
        if not side or (registers and square_side(rows)):
            raise self.error(f"has a position table of {rows} rows, no square grid or more than one; give --image-size")
        return side * (32 if parsed.stem == "root" else parsed.patch)


def square_side(patches: int) -> int:
    """The rows of a square grid; 0 where the patches make none."""
    side = math.isqrt(max(0, patches))
    return side if side * side == patches else 0
