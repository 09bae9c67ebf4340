"""Weights into a network, from a file or from memory, by the names of vitexp, timm, other ports and Google.

Nothing in a file is executed; `weights_read` says how.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.weights import google as weights_npz
from vitexp.weights import parts as weights_parts
from vitexp.weights import ports as weights_ports
from vitexp.weights import resnet as weights_resnet
from vitexp.weights import timm as weights_timm
from vitexp.weights.config import check_gelu
from vitexp.weights.entry import SAME, Entry, match, resize_position
from vitexp.weights.find import FORMS, Network, choose, read_weights
from vitexp.weights.read import Stored, read_tensors

__all__ = ["Stored", "load_tensors", "load_weights", "read_tensors", "read_weights"]

_HEADS = ("head.", "head/", "classifier.", "heads.head.")
_HIDDEN = ("pre_logits", "pooler.", "heads.pre_logits.")


def load_weights(
    model: nn.Module, name: str | Path, *, new_head: bool = False, grid: tuple[int, int] | None = None
) -> list[str]:
    """Fills a network from a file, or from one of the networks in it (FILE#prefix), or leaves it untouched and raises.

    `new_head` starts a zero head instead of the stored one, and drops the stored hidden layer where the network has
    none. Position tables are resized; `grid` is the rows and columns of patches they were learned on, where that is
    neither this network's grid nor a square. Gives notes on parts that were changed so that they fit. Nothing in a file
    is executed. Read are the files of Google, timm, Hugging Face, torchvision and vitexp; docs/weights.md has the list.
    Raises: ValueError for a file that cannot be read, whose names or shapes do not fit, or whose GELU is another.
    """
    stored = read_weights(name)
    if isinstance(model, ViT):
        check_gelu(stored, model.config)
    return load_stored(model, stored, new_head=new_head, grid=grid)


def load_stored(
    model: nn.Module, stored: Stored, *, new_head: bool = False, grid: tuple[int, int] | None = None
) -> list[str]:
    """The same from what was read. Where others' pictures are known to be normalised otherwise than to [-1, 1], that is
    put into the patch embedding.
    """
    notes = load_tensors(model, stored.tensors, source=stored.name, new_head=new_head, grid=grid)
    if stored.config is not None or choose(stored.tensors, stored.name).form not in weights_parts.PORTS:
        return notes
    return notes + weights_parts.take_in_normalisation(model, stored.beside or {}, stored.name)


def load_tensors(
    model: nn.Module,
    stored: Mapping[str, Tensor],
    *,
    source: str = "the state dict",
    new_head: bool = False,
    grid: tuple[int, int] | None = None,
) -> list[str]:
    """The same from names and values in memory. They do not say which GELU their network has; the caller knows."""
    if not isinstance(model, ViT | ResNet):
        raise ValueError(f"weights can be loaded into a ViT or a ResNet of vitexp, not into a {type(model).__name__}")
    network = choose(stored, source)
    if FORMS[network.form].resnet != isinstance(model, ResNet):
        held, wanted = ("a ResNet", "a Vision Transformer") if isinstance(model, ViT) else ("no ResNet", "a ResNet")
        raise ValueError(f"{source} holds {held}, and {model.config.arch} is {wanted}")
    state, notes = _filled(model, network, source, new_head)
    if isinstance(model, ViT):
        state = {name: resize_position(name, value, model.layout, grid) for name, value in state.items()}
    if new_head:
        state["head.weight"] = torch.zeros_like(model.head.weight)
        state["head.bias"] = torch.full_like(model.head.bias, model.config.head_bias)
    model.load_state_dict(state)
    return notes


def has_head(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these names hold a head, which files of pre-trained encoders may lack."""
    return any(name.startswith(_HEADS) for name in tensors)


def _filled(model: ViT | ResNet, network: Network, source: str, new_head: bool) -> tuple[dict[str, Tensor], list[str]]:
    tensors, notes = network.tensors, list[str]()
    if network.form in weights_parts.PORTS:
        tensors, notes = weights_parts.plain(tensors, source)
    if network.form == "timm":
        tensors = weights_timm.with_row_for_cls(tensors, model)  # type: ignore[arg-type]
    elif network.form in ("google", "google resnet"):
        tensors = weights_npz.in_first_dialect(tensors)
    elif network.form == "bit":
        tensors = weights_resnet.in_one_spelling(tensors)
    entries = _ENTRIES[network.form](model, source)
    if new_head:
        tensors = {name: value for name, value in tensors.items() if not _dropped(name, model)}
        entries = [entry for entry in entries if not entry.ours.startswith("head.")]
    return match(model, entries, tensors, source), notes


def _own_entries(model: nn.Module) -> list[Entry]:
    return [Entry(name, (name,), SAME) for name in model.state_dict()]


_ENTRIES: dict[str, Callable[[Any, str], list[Entry]]] = {
    "own": lambda model, source: _own_entries(model),
    "own resnet": lambda model, source: _own_entries(model),
    "timm": lambda model, source: weights_timm.timm_entries(model),
    "hf": lambda model, source: weights_ports.hf_entries(model),
    "torchvision": lambda model, source: weights_ports.torchvision_entries(model),
    "google": lambda model, source: weights_npz.npz_entries(model),
    "timm resnet": lambda model, source: weights_resnet.timm_entries(model),
    "bit": weights_resnet.bit_entries,
    "google resnet": weights_resnet.postact_entries,
}


def _dropped(name: str, model: ViT | ResNet) -> bool:
    return name.startswith(_HEADS) or (name.startswith(_HIDDEN) and model.pre_logits is None)
