"""Weights into a network, from a file: the reader is chosen by what is in the file, not by its name.

Read are Google's `.npz`, `.safetensors`, and torch files (`.pt`, `.ckpt`) with our names or timm's. Nothing in a file
is executed: arrays of objects and pickles with more than tensors are refused.
"""

import json
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vitexp.nn import weights_npz, weights_resnet, weights_timm
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.nn.weights_entry import SAME, Entry, match
from vitexp.nn.weights_resize import resize_position


class Stored(NamedTuple):
    """What a file holds: names and values, and in files of ours the config of the network, as plain words."""

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None


OWN_KEY = "vitexp"
"""Under this key a file of ours says what network it holds."""
_OWN_MARKER = "stem.embedding.weight"
# In front of the names in a checkpoint: a Lightning module's attributes, the averaged weights before the others;
# data-parallel and compile wrappers.
TORCH_PREFIXES = ("", "average.", "network.", "network._orig_mod.", "model.", "module.", "_orig_mod.")
_READ_ERRORS = (
    *(ValueError, TypeError, KeyError, EOFError, RuntimeError, OSError),
    *(zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, safetensors.SafetensorError),
)


def load_weights(
    model: nn.Module, path: str | Path, *, new_head: bool = False, grid: tuple[int, int] | None = None
) -> None:
    """Fills a network from a file, or leaves it untouched and raises.

    `new_head` starts a zero head instead of the stored one, and drops the stored hidden layer where the network has
    none. Position tables are resized; `grid` is the rows and columns of patches they were learned on, where that is
    neither this network's grid nor a square.
    Raises: ValueError for a file that cannot be read, or whose names or shapes do not fit.
    """
    load_tensors(model, read_tensors(path), source=str(path), new_head=new_head, grid=grid)


def load_tensors(
    model: nn.Module,
    stored: Mapping[str, Tensor],
    *,
    source: str = "the state dict",
    new_head: bool = False,
    grid: tuple[int, int] | None = None,
) -> None:
    """The same from names and values in memory: a state dict of ours or of timm's, or the arrays of a Google file."""
    if not isinstance(model, ViT | ResNet):
        raise ValueError(f"weights can be loaded into a ViT or a ResNet of vitexp, not into a {type(model).__name__}")
    recognised = _recognise(model, stored, source) if isinstance(model, ViT) else _resnet(model, stored, source)
    entries, stored = recognised
    if new_head:
        stored = {name: value for name, value in stored.items() if not _dropped(name, model)}
        entries = [entry for entry in entries if not entry.ours.startswith("head.")]
    state = match(model, entries, stored, source)
    if isinstance(model, ViT):
        state = {name: resize_position(name, value, model.layout, grid) for name, value in state.items()}
    if new_head:
        state["head.weight"] = torch.zeros_like(model.head.weight)
        state["head.bias"] = torch.full_like(model.head.bias, model.config.head_bias)
    model.load_state_dict(state)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Names and values of a file, as stored.

    Raises: ValueError for a file that is absent, damaged or of no known kind.
    """
    return read_weights(path).tensors


def read_weights(path: str | Path) -> Stored:
    """The same with the config, where the file is one of ours."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights file {path} does not exist")
    try:
        read = _reader_of(path)
        stored = read(path) if read else None
    except _READ_ERRORS as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"{path} is damaged or holds more than arrays, and was not read ({reason})") from error
    if stored is None:
        raise ValueError(f"{path} is no weights file: neither .npz nor .safetensors nor a torch file (.pt, .ckpt)")
    return stored


def _reader_of(path: Path) -> Callable[[Path], Stored] | None:
    with path.open("rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        return _read_npz if members and all(name.endswith(".npy") for name in members) else _read_torch
    if start[8:] == b"{":
        return _read_safetensors
    return _read_torch if start[:1] == b"\x80" else None


def _read_npz(path: Path) -> Stored:
    with np.load(path, allow_pickle=False) as file:
        return Stored({name: _tensor(file[name]) for name in file.files})


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # how NumPy sees a bfloat16 that it has no name for
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _read_safetensors(path: Path) -> Stored:
    with safetensors.safe_open(path, "pt") as file:
        words = (file.metadata() or {}).get(OWN_KEY)
        return Stored({name: file.get_tensor(name) for name in file.keys()}, json.loads(words) if words else None)  # noqa: SIM118


def _read_torch(path: Path) -> Stored:
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise TypeError("not a mapping of names to tensors")
    own = content.get(OWN_KEY)
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return Stored(tensors, own.get("model") if isinstance(own, dict) else None)


def _recognise(model: ViT, stored: Mapping[str, Tensor], source: str) -> tuple[list[Entry], dict[str, Tensor]]:
    """The format, by a name that only it has; what lies under another prefix, such as optimizer state, is left out."""
    if (bare := under_prefix(stored, _OWN_MARKER, TORCH_PREFIXES)) is not None:
        return _own_entries(model), bare
    if (bare := under_prefix(stored, weights_timm.MARKER, TORCH_PREFIXES)) is not None:
        return weights_timm.timm_entries(model), weights_timm.with_row_for_cls(bare, model)
    if (bare := under_prefix(stored, weights_npz.MARKER, weights_npz.PREFIXES)) is not None:
        return weights_npz.npz_entries(model), weights_npz.in_first_dialect(bare)
    markers = f"{_OWN_MARKER} (ours), {weights_timm.MARKER} (timm), {weights_npz.MARKER} (Google)"
    raise ValueError(f"{source} holds no Vision Transformer: it has none of {markers}")


def _resnet(model: ResNet, stored: Mapping[str, Tensor], source: str) -> tuple[list[Entry], dict[str, Tensor]]:
    """The same for a ResNet."""
    if (bare := under_prefix(stored, weights_resnet.OWN_MARKER, TORCH_PREFIXES)) is not None:
        return _own_entries(model), bare
    if (bare := under_prefix(stored, weights_resnet.TIMM_MARKER, TORCH_PREFIXES)) is not None:
        return weights_resnet.timm_entries(model), bare
    spelled = weights_resnet.in_one_spelling(stored)
    if (bare := under_prefix(spelled, weights_resnet.BIT_MARKER, weights_resnet.BIT_PREFIXES)) is not None:
        return weights_resnet.bit_entries(model, source), bare
    if (bare := under_prefix(stored, weights_resnet.POSTACT_MARKER, weights_npz.PREFIXES)) is not None:
        return weights_resnet.postact_entries(model, source), weights_npz.in_first_dialect(bare)
    raise ValueError(f"{source} holds no ResNet of ours, of timm's or of Google's, and {model.config.arch} is one")


def _own_entries(model: nn.Module) -> list[Entry]:
    return [Entry(name, (name,), SAME) for name in model.state_dict()]


def under_prefix(stored: Mapping[str, Tensor], marker: str, prefixes: tuple[str, ...]) -> dict[str, Tensor] | None:
    """The values under the prefix with which `marker` lies there, without it; None where it lies nowhere."""
    for prefix in prefixes:
        if prefix + marker in stored:
            return {name[len(prefix) :]: value for name, value in stored.items() if name.startswith(prefix)}
    return None


def _dropped(name: str, model: ViT | ResNet) -> bool:
    return name.startswith(("head.", "head/")) or (name.startswith("pre_logits") and model.pre_logits is None)
