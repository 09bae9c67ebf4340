"""Google's weight files: the `.npz` of the released ViTs and hybrids, read in every dialect and written in the first.

Dialects: two numberings of the modules in a layer (pre-Linen and Linen), all layers stacked in one array, prefixes
where a checkpoint held more, group norms with three axes too many, and position tables without a row for the cls token.

Source: Google's ViT and big_vision code.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitexp.nn.config import ViTConfig
from vitexp.nn.vit import ViT
from vitexp.record import write_atomically
from vitexp.weights.entry import ONE_MORE_AXIS, Codec, Entry, Rule, check_expressible, entries_of, written
from vitexp.weights.read import OWN_KEY, config_words

EXPRESSIBLE = {
    "pos_embed": ("1d", "sincos2d", "none"),
    "pos_at": ("stem",),
    "pool": ("cls", "gap", "map"),
    "stem": ("patch", "resnet50", "resnet26", "resnet14", "root"),
    "head": ("linear", "tanh"),
}
PREFIXES = ("", "params/img/", "params/", "opt/target/")
MARKER = "embedding/kernel"

_TABLE = "Transformer/posembed_input/pos_embedding"
_FIRST_NUMBERS = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}

DENSE = Codec(lambda stored: stored.T, lambda own: (own.T,))
CONVOLUTION = Codec(lambda stored: stored.permute(3, 2, 0, 1), lambda own: (own.permute(2, 3, 1, 0),))


def npz_entries(model: ViT) -> list[Entry]:
    """Where each parameter lies. Raises: ValueError for a network that the format has no words for."""
    check_expressible(model.config, EXPRESSIBLE, "Google .npz")
    return entries_of(model.state_dict(), _rules(model.layout.heads))


def save_npz(model: ViT, path: str | Path) -> None:
    """Writes the weights as a Google file, pre-Linen numbers, whole or not at all."""
    write_atomically(path, npz_bytes(npz_state(model), model.config))


def npz_state(model: ViT) -> dict[str, Tensor]:
    """The weights by Google's names, pre-Linen numbers. Raises: as `npz_entries`."""
    return written(model, npz_entries(model))


def npz_bytes(state: Mapping[str, Tensor], config: ViTConfig) -> bytes:
    """The content of a file with these arrays; the archive's comment, which others pass over, says what they are."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: tensor.cpu().numpy() for name, tensor in state.items()})
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = f'{{"{OWN_KEY}": {config_words(config)}}}'.encode()
    return buffer.getvalue()


def in_first_dialect(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names and shapes that `save_npz` writes; prefixes are off already."""
    stored = {_renumbered(name): array for name, array in _unstacked(arrays).items()}
    for name, array in stored.items():
        if re.search(r"(^|/)gn(\d|_root|_proj)/", name):
            stored[name] = array.flatten()
    if "pos_embedding" in stored:
        stored[_TABLE] = _with_row_for_cls(stored.pop("pos_embedding"), "cls" in stored)
    return stored


def _with_row_for_cls(table: Tensor, has_cls: bool) -> Tensor:
    """The later code adds positions before it prepends cls: the same as a row of zeros for cls."""
    return torch.cat([torch.zeros_like(table[:, :1]), table], dim=1) if has_cls and table.ndim == 3 else table


def _unstacked(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layer_names = {name: name.split("/", 2)[2] for name in arrays if name.startswith("Transformer/encoderblock/")}
    flat = {name: array for name, array in arrays.items() if name not in layer_names}
    for name, rest in layer_names.items():
        flat |= {
            f"Transformer/encoderblock_{layer}/{rest}": array
            for layer, array in enumerate(torch.atleast_1d(arrays[name]))
        }
    return flat


def _renumbered(name: str) -> str:
    match = re.fullmatch(r"(Transformer/encoderblock_\d+)/([^/]+)/(.+)", name)
    return f"{match[1]}/{_FIRST_NUMBERS.get(match[2], match[2])}/{match[3]}" if match else name


def _rules(heads: int) -> list[Rule]:
    layer, ours = "Transformer/encoderblock_{0}/", r"blocks\.(\d+)\."
    attention = f"{layer}MultiHeadDotProductAttention_1/"
    three = [f"{attention}{part}/" for part in ("query", "key", "value")]
    return [
        *pair(r"stem\.embedding", "embedding", "kernel", CONVOLUTION),
        Rule(r"pool\.cls", ("cls",)),
        Rule(r"position\.tables\.0", (_TABLE,), ONE_MORE_AXIS),
        Rule(rf"{ours}attention\.qkv\.weight", tuple(f"{part}kernel" for part in three), _split_kernels(heads)),
        Rule(rf"{ours}attention\.qkv\.bias", tuple(f"{part}bias" for part in three), _split_biases(heads)),
        *pair(rf"{ours}attention\.out", f"{attention}out", "kernel", _joined_kernel(heads)),
        *pair(rf"{ours}norm1", f"{layer}LayerNorm_0", "scale"),
        *pair(rf"{ours}norm2", f"{layer}LayerNorm_2", "scale"),
        *pair(rf"{ours}mlp\.fc1", f"{layer}MlpBlock_3/Dense_0", "kernel", DENSE),
        *pair(rf"{ours}mlp\.fc2", f"{layer}MlpBlock_3/Dense_1", "kernel", DENSE),
        *pair("norm", "Transformer/encoder_norm", "scale"),
        *pair("(pre_logits|head)", "{0}", "kernel", DENSE),
        *_map_rules(heads),
        *trunk_rules(r"stem\.trunk\."),
    ]


def _map_rules(heads: int) -> list[Rule]:
    """Attention pooling, which only big_vision's later numbering has."""
    attention = "MAPHead_0/MultiHeadDotProductAttention_0/"
    keys_values = [f"{attention}{part}/" for part in ("key", "value")]
    return [
        Rule(r"pool\.probe", ("MAPHead_0/probe",), ONE_MORE_AXIS),
        Rule(r"pool\.q\.weight", (f"{attention}query/kernel",), _split_kernels(heads, 1)),
        Rule(r"pool\.q\.bias", (f"{attention}query/bias",), _split_biases(heads, 1)),
        Rule(r"pool\.kv\.weight", tuple(f"{part}kernel" for part in keys_values), _split_kernels(heads, 2)),
        Rule(r"pool\.kv\.bias", tuple(f"{part}bias" for part in keys_values), _split_biases(heads, 2)),
        *pair(r"pool\.out", f"{attention}out", "kernel", _joined_kernel(heads)),
        *pair(r"pool\.norm", "MAPHead_0/LayerNorm_0", "scale"),
        *pair(r"pool\.mlp\.fc1", "MAPHead_0/MlpBlock_0/Dense_0", "kernel", DENSE),
        *pair(r"pool\.mlp\.fc2", "MAPHead_0/MlpBlock_0/Dense_1", "kernel", DENSE),
    ]


def trunk_rules(ours: str) -> list[Rule]:
    """A ResNet's trunk, under our name for it."""
    unit = rf"{ours}stages\.(\d+)\.(\d+)\."
    return [
        Rule(rf"{ours}conv_root\.weight", ("conv_root/kernel",), CONVOLUTION),
        *pair(rf"{ours}gn_root", "gn_root", "scale"),
        Rule(rf"{unit}(conv\w+)\.weight", ("block{0}/unit{1}/{2}/kernel",), CONVOLUTION, first=1),
        *pair(rf"{unit}(gn\w+)", "block{0}/unit{1}/{2}", "scale", first=1),
    ]


def pair(ours: str, theirs: str, weight: str, codec: Codec | None = None, first: int = 0) -> list[Rule]:
    """A weight, under the format's own word for it, and a bias."""
    kernel = {} if codec is None else {"codec": codec}
    return [
        Rule(rf"{ours}\.weight", (f"{theirs}/{weight}",), first=first, **kernel),
        Rule(rf"{ours}\.bias", (f"{theirs}/bias",), first=first),
    ]


def _split_kernels(heads: int, parts: int = 3) -> Codec:
    """So many of (D, H, K) <-> one of (parts * D, D)."""
    return Codec(
        lambda *stored: torch.cat([part.flatten(1).T for part in stored]),
        lambda own: tuple(part.T.unflatten(1, (heads, -1)) for part in own.chunk(parts)),
    )


def _split_biases(heads: int, parts: int = 3) -> Codec:
    """So many of (H, K) <-> one of (parts * D)."""
    return Codec(
        lambda *stored: torch.cat([part.flatten() for part in stored]),
        lambda own: tuple(part.unflatten(0, (heads, -1)) for part in own.chunk(parts)),
    )


def _joined_kernel(heads: int) -> Codec:
    """(H, K, D) <-> (D, D)."""
    return Codec(lambda stored: stored.flatten(0, 1).T, lambda own: (own.T.unflatten(0, (heads, -1)),))
