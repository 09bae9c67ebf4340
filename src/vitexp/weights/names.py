"""How each weight format names and lays out the parameters of a network: one table, used in both directions.

A name of ours is a module and, for most, its weight or bias; numbers of layers, stages and units are the `#` of the
table and the `{}` of a format, in their order. Written by the same row as it is read, a round trip is exact.

Sources: Google's ViT, BiT and big_vision code; the published weights of timm, Hugging Face and torchvision.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitexp.nn.config import ViTConfig
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT

# Layouts of the same values. Google keeps the output of a kernel last, and each head of an attention apart.


class Codec(NamedTuple):
    """The file's values to ours, and back."""

    read: Callable[..., Tensor]
    write: Callable[[Tensor], tuple[Tensor, ...]]


SAME = Codec(lambda stored: stored, lambda own: (own,))
_ONE_MORE_AXIS = Codec(lambda stored: stored.squeeze(0), lambda own: (own[None],))
_DENSE = Codec(lambda stored: stored.T, lambda own: (own.T,))
_CONVOLUTION = Codec(lambda stored: stored.permute(3, 2, 0, 1), lambda own: (own.permute(2, 3, 1, 0),))
# The head of a ResNet is a convolution of one pixel.
_PIXEL = Codec(lambda stored: stored[:, :, 0, 0], lambda own: (own[:, :, None, None],))
_PIXEL_LAST = Codec(lambda stored: stored[0, 0].T, lambda own: (own.T[None, None],))


def _concatenated(parts: int) -> Codec:
    return SAME if parts == 1 else Codec(lambda *stored: torch.cat(stored), lambda own: own.chunk(parts))


def _kernels_of_heads(heads: int, parts: int) -> Codec:
    """So many of (D, H, K) <-> one of (parts * D, D)."""
    return Codec(
        lambda *stored: torch.cat([part.flatten(1).T for part in stored]),
        lambda own: tuple(part.T.unflatten(1, (heads, -1)) for part in own.chunk(parts)),
    )


def _biases_of_heads(heads: int, parts: int) -> Codec:
    """So many of (H, K) <-> one of (parts * D)."""
    return Codec(
        lambda *stored: torch.cat([part.flatten() for part in stored]),
        lambda own: tuple(part.unflatten(0, (heads, -1)) for part in own.chunk(parts)),
    )


def _kernel_from_heads(heads: int) -> Codec:
    """(H, K, D) <-> (D, D)."""
    return Codec(lambda stored: stored.flatten(0, 1).T, lambda own: (own.T.unflatten(0, (heads, -1)),))


def _codec(kind: str, leaf: str, google: bool, heads: int, parts: int) -> Codec:
    if kind == "row":
        return _ONE_MORE_AXIS
    if kind == "to heads":
        if not google:
            return _concatenated(parts)
        return (_kernels_of_heads if leaf == "weight" else _biases_of_heads)(heads, parts)
    if leaf != "weight" or kind == "norm":
        return SAME
    if kind == "from heads":
        return _kernel_from_heads(heads) if google else SAME
    if kind == "pixel":
        return _PIXEL_LAST if google else _PIXEL
    return {"conv": _CONVOLUTION, "dense": _DENSE}[kind] if google else SAME


# The table: our name, the kind of module, and the names of timm, Hugging Face, torchvision and Google. Names between
# bars are several arrays in a file and one of ours. Kind "value" and "row" are arrays themselves, "row" with one axis
# more in a file.

_B, _HF, _TV, _G = "blocks.{}.", "encoder.layer.{}.", "encoder.layers.encoder_layer_{}.", "Transformer/encoderblock_{}/"
_ATTENTION, _POOL = f"{_G}MultiHeadDotProductAttention_1/", "MAPHead_0/MultiHeadDotProductAttention_0/"
_THREE = "query|key|value"
_ENCODER = [
    ("stem.embedding", "conv", "patch_embed.proj", "embeddings.patch_embeddings.projection", "conv_proj", "embedding"),
    ("pool.cls", "value", "cls_token", "embeddings.cls_token", "class_token", "cls"),
    ("position.tables.0", "row", "pos_embed", "embeddings.position_embeddings", "encoder.pos_embedding",
     "Transformer/posembed_input/pos_embedding"),
    ("blocks.#.norm1", "norm", f"{_B}norm1", f"{_HF}layernorm_before", f"{_TV}ln_1", f"{_G}LayerNorm_0"),
    ("blocks.#.attention.qkv", "to heads", f"{_B}attn.qkv", f"{_HF}attention.attention.{_THREE}",
     f"{_TV}self_attention.in_proj_", f"{_ATTENTION}{_THREE}"),
    ("blocks.#.attention.out", "from heads", f"{_B}attn.proj", f"{_HF}attention.output.dense",
     f"{_TV}self_attention.out_proj", f"{_ATTENTION}out"),
    ("blocks.#.norm2", "norm", f"{_B}norm2", f"{_HF}layernorm_after", f"{_TV}ln_2", f"{_G}LayerNorm_2"),
    ("blocks.#.mlp.fc1", "dense", f"{_B}mlp.fc1", f"{_HF}intermediate.dense", f"{_TV}mlp.0", f"{_G}MlpBlock_3/Dense_0"),
    ("blocks.#.mlp.fc2", "dense", f"{_B}mlp.fc2", f"{_HF}output.dense", f"{_TV}mlp.3", f"{_G}MlpBlock_3/Dense_1"),
    ("norm", "norm", "norm", "layernorm", "encoder.ln", "Transformer/encoder_norm"),
    ("pre_logits", "dense", "", "pooler.dense", "heads.pre_logits", "pre_logits"),
    ("head", "dense", "head", "classifier", "heads.head", "head"),
    ("pool.probe", "row", "attn_pool.latent", "", "", "MAPHead_0/probe"),
    ("pool.q", "to heads", "attn_pool.q", "", "", f"{_POOL}query"),
    ("pool.kv", "to heads", "attn_pool.kv", "", "", f"{_POOL}key|value"),
    ("pool.out", "from heads", "attn_pool.proj", "", "", f"{_POOL}out"),
    ("pool.norm", "norm", "attn_pool.norm", "", "", "MAPHead_0/LayerNorm_0"),
    ("pool.mlp.fc1", "dense", "attn_pool.mlp.fc1", "", "", "MAPHead_0/MlpBlock_0/Dense_0"),
    ("pool.mlp.fc2", "dense", "attn_pool.mlp.fc2", "", "", "MAPHead_0/MlpBlock_0/Dense_1"),
]  # fmt: skip

# The same of a ResNet's trunk: ours, kind, timm, Google, BiT. The last two count stages and units from 1.
_T, _U, _BIT, _S = "stages.{}.blocks.{}.", "block{}/unit{}/", "block{}/unit{:02d}/", "standardized_conv2d"
_TRUNK = [
    ("conv_root", "conv", "stem.conv", "conv_root", f"root_block/{_S}"),
    ("gn_root", "norm", "stem.norm", "gn_root", ""),
    ("stages.#.#.conv1", "conv", f"{_T}conv1", f"{_U}conv1", f"{_BIT}a/{_S}"),
    ("stages.#.#.conv2", "conv", f"{_T}conv2", f"{_U}conv2", f"{_BIT}b/{_S}"),
    ("stages.#.#.conv3", "conv", f"{_T}conv3", f"{_U}conv3", f"{_BIT}c/{_S}"),
    ("stages.#.#.gn1", "norm", f"{_T}norm1", f"{_U}gn1", f"{_BIT}a/group_norm"),
    ("stages.#.#.gn2", "norm", f"{_T}norm2", f"{_U}gn2", f"{_BIT}b/group_norm"),
    ("stages.#.#.gn3", "norm", f"{_T}norm3", f"{_U}gn3", f"{_BIT}c/group_norm"),
    ("stages.#.#.conv_proj", "conv", f"{_T}downsample.conv", f"{_U}conv_proj", f"{_BIT}a/proj/{_S}"),
    ("stages.#.#.gn_proj", "norm", f"{_T}downsample.norm", f"{_U}gn_proj", ""),
    ("gn", "norm", "norm", "", "group_norm"),
]


class Row(NamedTuple):
    """What a format makes of one of our modules: its kind, its name there, and the number it counts from."""

    kind: str
    theirs: str
    first: int = 0


def _encoder(column: int) -> dict[str, Row]:
    return {row[0]: Row(row[1], row[column]) for row in _ENCODER if row[column]}


def _trunk(ours: str, column: int, theirs: str = "") -> dict[str, Row]:
    return {f"{ours}{row[0]}": Row(row[1], theirs + row[column], int(column > 2)) for row in _TRUNK if row[column]}


_BACKBONE = "patch_embed.backbone."
_ROOT = {f"{_BACKBONE}stem.conv": f"{_BACKBONE}conv", f"{_BACKBONE}stem.norm": f"{_BACKBONE}norm"}


@dataclass(frozen=True)
class Entry:
    """One parameter: our name, and the name or names that hold it in a file."""

    ours: str
    theirs: tuple[str, ...]
    codec: Codec


@dataclass(frozen=True, kw_only=True)
class Form:
    """A format: its program, the name by which a network is known in it, and what it can express."""

    program: str
    marker: str
    """a regular expression"""
    rows: Mapping[str, Row] | None = None
    """by our modules; None where the names are ours"""
    allowed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    resnet: bool = False
    order: str = ""
    """of the units in a ResNet, where the names say it"""
    gelu: str | None = None
    """in the networks that are published so"""
    norms: tuple[str, str] | None = None
    """Google's words for the weight and bias of a norm; None where names are torch's"""

    def entry(self, name: str, heads: int = 1) -> Entry:
        """Where a parameter lies. Raises: KeyError for one that the format has no row for."""
        if self.rows is None:
            return Entry(name, (name,), SAME)
        found = re.fullmatch(r"(.+?)(?:\.(weight|bias))?", name)
        assert found is not None, "every name is a module, with or without a leaf"
        module, leaf = found[1], found[2] or ""
        row = self.rows[_NUMBER.sub("#", module)]
        numbers = [int(number) + row.first for number in _NUMBER.findall(module)]
        stem, last = re.fullmatch(r"((?:.*[./])?)(.*)", row.theirs.format(*numbers)).groups()  # type: ignore[union-attr]
        parts = last.split("|")
        names = tuple(f"{stem}{part}{self._leaf(row.kind, part, leaf)}" for part in parts)
        return Entry(name, names, _codec(row.kind, leaf, self.norms is not None, heads, len(parts)))

    def _leaf(self, kind: str, module: str, leaf: str) -> str:
        if self.norms is None:
            return leaf if not leaf or module.endswith("_") else f".{leaf}"
        words = self.norms if kind == "norm" else ("kernel", "bias")
        return leaf and f"/{words[leaf == 'bias']}"


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_VIT = {"pos_embed": ("1d",), "pos_at": ("stem",), "pool": ("cls",), "stem": ("patch",), "head": ("linear", "tanh")}
_PORT = _VIT | {"gelu": ("tanh", "exact")}
_MORE = {"pool": ("cls", "gap", "map"), "stem": ("patch", "resnet50", "resnet26", "resnet14", "root")}
_RESNET = {"stem": ("auto",), "resnet": ("preact", "postact")}
_GOOGLE, _BIT_NORMS = ("scale", "bias"), ("gamma", "beta")

FORMS = {
    "own": Form(program="vitexp", marker=r"stem\.embedding\.weight"),
    "timm": Form(
        program="timm",
        marker=r"patch_embed\.proj\.weight",
        rows=_encoder(2) | _trunk("stem.trunk.", 2, _BACKBONE),
        allowed=_PORT | _MORE | {"pos_embed": ("1d", "none"), "head": ("linear",)},
        gelu="exact",
    ),
    "hf": Form(
        program="Hugging Face",
        marker=r"embeddings\.patch_embeddings\.projection\.weight",
        rows=_encoder(3),
        allowed=_PORT,
        gelu="exact",
    ),
    "torchvision": Form(
        program="torchvision",
        marker=r"encoder\.layers\.encoder_layer_0\.ln_1\.weight",
        rows=_encoder(4),
        allowed=_PORT,
        gelu="exact",
    ),
    "google": Form(
        program="Google",
        marker="embedding/kernel",
        rows=_encoder(5) | _trunk("stem.trunk.", 3),
        allowed=_VIT | _MORE | {"pos_embed": ("1d", "sincos2d", "none")},
        gelu="tanh",
        norms=_GOOGLE,
    ),
    "own resnet": Form(program="vitexp", marker=r"trunk\.conv_root\.weight", resnet=True),
    "timm resnet": Form(
        program="timm",
        marker=r"stem\.conv\.weight",
        rows=_trunk("trunk.", 2) | {"head": Row("pixel", "head.fc")},
        allowed=_RESNET,
        resnet=True,
    ),
    "bit": Form(
        program="BiT",
        marker=r"root_block/standardized_conv2d(?:_\d+)?/kernel",
        rows=_trunk("trunk.", 4) | {"head": Row("pixel", "head/conv2d")},
        allowed=_RESNET,
        resnet=True,
        order="preact",
        norms=_BIT_NORMS,
    ),
    "google resnet": Form(
        program="Google",
        marker="conv_root/kernel",
        rows=_trunk("trunk.", 3) | {name: Row("dense", name) for name in ("head", "pre_logits")},
        allowed=_RESNET | {"head": ("linear", "tanh")},
        resnet=True,
        order="postact",
        norms=_GOOGLE,
    ),
}
"""The first that fits is taken."""
PORTS = ("timm", "hf", "torchvision")
"""Programs whose networks have other parts, and whose images are normalised in other ways."""


def with_root_alone(form: Form) -> Form:
    """A stem of the root alone is timm's backbone itself; otherwise the root is the backbone's stem."""
    rows = form.rows or {}
    return replace(
        form, rows={ours: row._replace(theirs=_ROOT.get(row.theirs, row.theirs)) for ours, row in rows.items()}
    )


def entries_of(model: ViT | ResNet, named: str, source: str = "the file") -> list[Entry]:
    """Where each parameter lies. Raises: ValueError for a network that the format has no words for."""
    form, config = FORMS[named], model.config
    if form.order and config.resnet != form.order:
        raise ValueError(f"{source} holds a ResNet with units {form.order}, and the network has {config.resnet} ones")
    if form.rows is not None:
        check_expressible(config, form.allowed, f"{form.program} .npz" if form.norms else form.program)
    if named == "timm" and config.stem == "root":
        form = with_root_alone(form)
    heads = model.layout.heads if isinstance(model, ViT) else 1
    return [form.entry(name, heads) for name in model.state_dict()]


# Options that every format can carry: sizes, which show in the shapes, and what only training sees.
_FREE = ("arch", "image_size", "classes", "head_bias", "dropout")


def check_expressible(config: ViTConfig, allowed: Mapping[str, Sequence[Any]], format_name: str) -> None:
    """Refuses, by the name of the option, a network that a format has no words for.

    An option that is neither free nor in `allowed` must have its default. Raises: ValueError.
    """
    for option in fields(config):
        value, words = getattr(config, option.name), allowed.get(option.name, (option.default,))
        if option.name not in _FREE and value not in words:
            known = " or ".join(map(str, words))
            raise ValueError(f"{format_name} weights cannot express {option.name} {value}, only {known}")


def written(model: ViT | ResNet, named: str) -> dict[str, Tensor]:
    """The network's values under the names of a format. Raises: as `entries_of`."""
    state, stored = model.state_dict(), dict[str, Tensor]()
    for entry in entries_of(model, named):
        parts = entry.codec.write(state[entry.ours])
        stored |= {name: part.contiguous() for name, part in zip(entry.theirs, parts, strict=True)}
    return stored
