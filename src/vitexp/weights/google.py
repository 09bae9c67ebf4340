"""Google's weight files: the `.npz` of the released ViTs, hybrids and ResNets, in every dialect.

Dialects: two numberings of the modules in a layer (pre-Linen and Linen), all layers stacked in one array, numbered
convolutions, group norms with three axes too many, and position tables without a row for the cls token.

Source: Google's ViT, BiT and big_vision code.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitexp.nn.config import ViTConfig
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.record import write_atomically
from vitexp.weights.names import written
from vitexp.weights.read import OWN_KEY, config_words

_FIRST_NUMBERS = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}


def save_npz(model: ViT | ResNet, path: str | Path) -> None:
    """Writes the weights as a Google file, pre-Linen numbers, whole or not at all."""
    write_atomically(path, npz_bytes(npz_state(model), model.config))


def npz_state(model: ViT | ResNet) -> dict[str, Tensor]:
    """The weights by Google's names, those of a ResNet before activation by BiT's.

    Raises: ValueError for a network that the format has no words for.
    """
    if isinstance(model, ViT):
        return written(model, "google")
    if model.config.resnet == "postact":
        return written(model, "google resnet")
    return {f"resnet/{name}": value for name, value in written(model, "bit").items()}


def npz_bytes(state: Mapping[str, Tensor], config: ViTConfig) -> bytes:
    """The content of a file with these arrays; the archive's comment, which others pass over, says what they are."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: tensor.cpu().numpy() for name, tensor in state.items()})
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = f'{{"{OWN_KEY}": {config_words(config)}}}'.encode()
    return buffer.getvalue()


def in_one_dialect(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names and shapes that `npz_state` gives; prefixes are off already."""
    stored = {_spelt(name): array for name, array in _unstacked(arrays)}
    for name in filter(re.compile(r"(.*/)?gn(\d|_root|_proj)/.*|.*group_norm/.*").fullmatch, stored):
        stored[name] = stored[name].flatten()
    if (table := stored.pop("pos_embedding", None)) is not None:
        if "cls" in stored and table.ndim == 3:  # added before cls is prepended: the same as a row of zeros for it
            table = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
        stored["Transformer/posembed_input/pos_embedding"] = table
    return stored


def _unstacked(arrays: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, array in arrays.items():
        start, stacked, rest = name.partition("Transformer/encoderblock/")
        if stacked and not start:
            yield from ((f"Transformer/encoderblock_{n}/{rest}", one) for n, one in enumerate(torch.atleast_1d(array)))
        else:
            yield name, array


def _spelt(name: str) -> str:
    """With the numbers of the first code, and convolutions without."""
    if match := re.fullmatch(r"(Transformer/encoderblock_\d+)/([^/]+)/(.+)", name):
        return f"{match[1]}/{_FIRST_NUMBERS.get(match[2], match[2])}/{match[3]}"
    return re.sub(r"standardized_conv2d_\d+", "standardized_conv2d", name)
