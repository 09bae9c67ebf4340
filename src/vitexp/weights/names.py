"""How each weight format names and lays out the parameters of a network: one table, used in both directions.

A name of ours is a module and, for most, its weight or bias; numbers of layers, stages and units are the `#` of the
table and the `{0}` and `{1}` of a format, or `{2}` and `{3}` where it counts from 1. Written by the same row as it is
read, a round trip is exact.

Sources: Google's ViT, BiT and big_vision code; the published weights of timm, Hugging Face and torchvision.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
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


_SAME = Codec(lambda stored: stored, lambda own: (own,))
_ONE_MORE_AXIS = Codec(lambda stored: stored.squeeze(0), lambda own: (own[None],))
# The head of a ResNet is a convolution of one pixel.
_PIXEL = Codec(lambda stored: stored[:, :, 0, 0], lambda own: (own[:, :, None, None],))
_OUTPUT_LAST = {
    "dense": Codec(lambda stored: stored.T, lambda own: (own.T,)),
    "conv": Codec(lambda stored: stored.permute(3, 2, 0, 1), lambda own: (own.permute(2, 3, 1, 0),)),
    "pixel": Codec(lambda stored: stored[0, 0].T, lambda own: (own.T[None, None],)),
}


def _concatenated(parts: int) -> Codec:
    return _SAME if parts == 1 else Codec(lambda *stored: torch.cat(stored), lambda own: own.chunk(parts))


def _to_heads(heads: int, parts: int) -> Codec:
    """So many kernels of (D, H, K) <-> one of (parts * D, D), and biases of (H, K) <-> (parts * D)."""
    return Codec(
        lambda *stored: torch.cat([part.flatten(-2).t() for part in stored]),
        lambda own: tuple(part.t().unflatten(-1, (heads, -1)) for part in own.chunk(parts)),
    )


def _from_heads(heads: int) -> Codec:
    """(H, K, D) <-> (D, D)."""
    return Codec(lambda stored: stored.flatten(0, 1).T, lambda own: (own.T.unflatten(0, (heads, -1)),))


def _codec(kind: str, leaf: str, google: bool, heads: int, parts: int) -> Codec:
    if kind == "row":
        return _ONE_MORE_AXIS
    if kind == "to heads":
        return _to_heads(heads, parts) if google else _concatenated(parts)
    if leaf != "weight" or kind == "norm":
        return _SAME
    if not google:
        return _PIXEL if kind == "pixel" else _SAME
    return _from_heads(heads) if kind == "from heads" else _OUTPUT_LAST[kind]


# The table: our name, the kind of module, and the names of timm, Hugging Face, torchvision and Google. Names between
# bars are several arrays in a file and one of ours. Kind "value" and "row" are arrays themselves, "row" with one axis
# more in a file.

_B, _HF, _TV, _G = (
    "blocks.{0}.",
    "encoder.layer.{0}.",
    "encoder.layers.encoder_layer_{0}.",
    "Transformer/encoderblock_{0}/",
)
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
    ("registers.tokens", "value", "reg_token", "", "", ""),
    ("blocks.#.attention.q_norm", "norm", f"{_B}attn.q_norm", "", "", ""),
    ("blocks.#.attention.k_norm", "norm", f"{_B}attn.k_norm", "", "", ""),
    ("blocks.#.scale1.gamma", "value", f"{_B}ls1.gamma", "", "", ""),
    ("blocks.#.scale2.gamma", "value", f"{_B}ls2.gamma", "", "", ""),
    ("blocks.#.mlp.gate", "dense", f"{_B}mlp.fc1_g", "", "", ""),
    ("blocks.#.mlp.up", "dense", f"{_B}mlp.fc1_x", "", "", ""),
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
_T, _U, _BIT, _S = "stages.{0}.blocks.{1}.", "block{2}/unit{3}/", "block{2}/unit{3:02d}/", "standardized_conv2d"
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


Rows = Mapping[str, tuple[str, str]]
"""Our modules, each with its kind and a format's name for it."""


def _encoder(column: int) -> dict[str, tuple[str, str]]:
    return {row[0]: (row[1], row[column]) for row in _ENCODER if row[column]}


def _trunk(ours: str, column: int, theirs: str = "") -> dict[str, tuple[str, str]]:
    return {f"{ours}{row[0]}": (row[1], f"{theirs}{row[column]}") for row in _TRUNK if row[column]}


class Entry(NamedTuple):
    """One parameter: our name, and the name or names that hold it in a file."""

    ours: str
    theirs: tuple[str, ...]
    codec: Codec


class Form(NamedTuple):
    """A format: its program, the name by which a network is known in it (a pattern), and what it can express.

    `rows` are None where names are ours. `gelu` is that of the networks that are published so, `order` that of the
    units in a ResNet, where the names say it, `norms` Google's words for the weight and bias of a norm.
    """

    program: str
    marker: str
    rows: Rows | None = None
    allowed: Mapping[str, Sequence[Any]] = {}
    resnet: bool = False
    gelu: str | None = None
    order: str = ""
    norms: tuple[str, str] | None = None

    def entry(self, name: str, heads: int = 1, root_alone: bool = False) -> Entry:
        """Where a parameter lies. Raises: KeyError for one that the format has no row for."""
        if self.rows is None:
            return Entry(name, (name,), _SAME)
        module, _, leaf = name.rpartition(".")
        if leaf not in ("weight", "bias"):
            module, leaf = name, ""
        kind, template = self.rows[_NUMBER.sub("#", module)]
        if root_alone:  # it is timm's backbone itself; otherwise the root is the backbone's stem
            template = template.replace("backbone.stem.", "backbone.")
        numbers = [int(number) for number in _NUMBER.findall(module)]
        theirs = template.format(*numbers, *(number + 1 for number in numbers))
        last = re.split("[./]", theirs)[-1]
        parts = [theirs.removesuffix(last) + part + self._leaf(kind, part, leaf) for part in last.split("|")]
        return Entry(name, tuple(parts), _codec(kind, leaf, self.norms is not None, heads, len(parts)))

    def _leaf(self, kind: str, module: str, leaf: str) -> str:
        if self.norms is None:
            return leaf if not leaf or module.endswith("_") else f".{leaf}"
        words = self.norms if kind == "norm" else ("kernel", "bias")
        return leaf and f"/{words[leaf == 'bias']}"


_SCALE_BIAS, _GAMMA_BETA = ("scale", "bias"), ("gamma", "beta")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_VIT = {"pos_embed": ("1d",), "pos_at": ("stem",), "pool": ("cls",), "stem": ("patch",), "head": ("linear", "tanh")}
_MORE = {"pool": ("cls", "gap", "map"), "stem": ("patch", "resnet50", "resnet26", "resnet14", "root")}
_GOOGLE = _VIT | _MORE | {"pos_embed": ("1d", "sincos2d", "none")}
_PORT = _VIT | {"gelu": ("tanh", "exact")}
_ANY: tuple[Any, ...] = ()
_TIMM = _PORT | _MORE | {"pos_embed": ("1d", "none"), "head": ("linear",), "registers": _ANY, "layer_scale": _ANY}
_TIMM |= {"qk_norm": (False, True), "norm": ("layer", "rms"), "mlp": ("gelu", "swiglu")}
_RESNET = {"stem": ("auto",), "resnet": ("preact", "postact")}
_LATER = _RESNET | {"head": ("linear", "tanh")}
_GOOGLE_ROWS = _encoder(5) | _trunk("stem.trunk.", 3)
_TIMM_ROWS = _encoder(2) | _trunk("stem.trunk.", 2, "patch_embed.backbone.")
_TIMM_RESNET_ROWS = _trunk("trunk.", 2) | {"head": ("pixel", "head.fc")}
_BIT_ROWS = _trunk("trunk.", 4) | {"head": ("pixel", "head/conv2d")}
_LATER_ROWS = _trunk("trunk.", 3) | {"head": ("dense", "head"), "pre_logits": ("dense", "pre_logits")}

FORMS = {
    "own": Form("vitexp", r"(?:stem\.embedding|blocks\.0\.attention\.qkv)\.weight"),
    "timm": Form("timm", r"patch_embed\.proj\.weight", _TIMM_ROWS, _TIMM, gelu="exact"),
    "hf": Form("Hugging Face", r"embeddings\.patch_embeddings\.projection\.weight", _encoder(3), _PORT, gelu="exact"),
    "torchvision": Form(
        "torchvision", r"encoder\.layers\.encoder_layer_0\.ln_1\.weight", _encoder(4), _PORT, gelu="exact"
    ),
    "google": Form("Google", "embedding/kernel", _GOOGLE_ROWS, _GOOGLE, gelu="tanh", norms=_SCALE_BIAS),
    "own resnet": Form("vitexp", r"trunk\.conv_root\.weight", resnet=True),
    "timm resnet": Form("timm", r"stem\.conv\.weight", _TIMM_RESNET_ROWS, _RESNET, resnet=True),
    "bit": Form(
        "BiT", rf"root_block/{_S}(?:_\d+)?/kernel", _BIT_ROWS, _RESNET, resnet=True, order="preact", norms=_GAMMA_BETA
    ),
    "google resnet": Form(
        "Google", "conv_root/kernel", _LATER_ROWS, _LATER, resnet=True, order="postact", norms=_SCALE_BIAS
    ),
}
"""The first that fits is taken."""
PORTS = ("timm", "hf", "torchvision")
"""Programs whose networks have other parts, and whose images are normalised in other ways."""


def entries_of(model: ViT | ResNet, named: str, source: str = "the file") -> list[Entry]:
    """Where each parameter lies. Raises: ValueError for a network that the format has no words for."""
    form, config = FORMS[named], model.config
    if form.rows is not None:
        check_expressible(config, form.allowed, f"{form.program} .npz" if form.norms else form.program)
    if form.order and config.resnet != form.order:
        raise ValueError(f"{source} holds a ResNet with units {form.order}, and the network has {config.resnet} ones")
    heads = model.layout.heads if isinstance(model, ViT) else 1
    return [form.entry(name, heads, config.stem == "root") for name in model.state_dict()]


# Options that every format can carry: sizes, which show in the shapes, what only training sees, and what goes with a
# part of somebody's own, which no other format has.
_FREE = ("arch", "image_size", "classes", "pos_std", "head_bias", "dropout", "options", "sources", "drop_path",
         "patch_dropout")  # fmt: skip


def check_expressible(config: ViTConfig, allowed: Mapping[str, Sequence[Any]], format_name: str) -> None:
    """Refuses, by the name of the option, a network that a format has no words for.

    An option that is neither free nor in `allowed` must have its default; `_ANY` allows all. Raises: ValueError.
    """
    for option in fields(config):
        value, words = getattr(config, option.name), allowed.get(option.name, (option.default,))
        if option.name not in _FREE and words and value not in words:
            known = " or ".join(map(str, words))
            raise ValueError(f"{format_name} weights cannot express {option.name} {value}, only {known}")


def written(model: ViT | ResNet, named: str) -> dict[str, Tensor]:
    """The network's values under the names of a format. Raises: as `entries_of`."""
    state, stored = model.state_dict(), dict[str, Tensor]()
    for entry in entries_of(model, named):
        parts = entry.codec.write(state[entry.ours])
        stored |= {name: part.contiguous() for name, part in zip(entry.theirs, parts, strict=True)}
    return stored
