"""Weights into a network, from a file or from memory, by the names of vitexp, timm, other ports and Google.

Nothing in a file is executed; `vitexp.weights.read` says how.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitexp.nn.position import Layout
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.weights.config import check_gelu
from vitexp.weights.names import FORMS, PORTS, Entry, entries_of
from vitexp.weights.parts import plain, take_in_normalisation
from vitexp.weights.read import Network, Stored, choose, read_weights, shown

_HEADS = ("head.", "head/", "classifier.", "heads.head.")
_HIDDEN = ("pre_logits", "pooler.", "heads.pre_logits.")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    """The same from what was read, or lies in memory; the caller knows its GELU. Where others' pictures are known to be
    normalised otherwise than to [-1, 1], that is put into the patch embedding.
    """
    source = stored.name
    if not isinstance(model, ViT | ResNet):
        raise ValueError(f"weights can be loaded into a ViT or a ResNet of vitexp, not into a {type(model).__name__}")
    network = choose(stored.tensors, source)
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
    if stored.config is None and network.form in PORTS:
        notes += take_in_normalisation(model, stored.beside or {}, source)
    return notes


def has_head(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these names hold a head, which files of pre-trained encoders may lack."""
    return any(name.startswith(_HEADS) for name in tensors)


def _filled(model: ViT | ResNet, network: Network, source: str, new_head: bool) -> tuple[dict[str, Tensor], list[str]]:
    tensors, notes = plain(network, source)
    if network.form == "timm" and isinstance(model, ViT):
        tensors = _with_row_for_cls(tensors, model.layout)
    entries = entries_of(model, network.form, source)
    if new_head:
        dropped = _HEADS if model.pre_logits is not None else _HEADS + _HIDDEN
        tensors = {name: value for name, value in tensors.items() if not name.startswith(dropped)}
        entries = [entry for entry in entries if not entry.ours.startswith("head.")]
    return _matched(model, entries, tensors, source), notes


def _matched(
    model: nn.Module, entries: Sequence[Entry], stored: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The stored values under our names; position tables may still have another number of rows.

    Raises: ValueError that names what is missing, unexpected and of the wrong shape, all in one sentence.
    """
    own, state = model.state_dict(), dict[str, Tensor]()
    missing, wrong, unfit = list[str](), list[str](), list[str]()
    for entry in entries:
        absent = [name for name in entry.theirs if name not in stored]
        misfits = [] if absent else _misfits(entry, own[entry.ours], stored)
        if not absent and not misfits:
            state[entry.ours] = entry.codec.read(*(stored[name] for name in entry.theirs))
        missing += absent
        wrong += misfits
        unfit += [fault for name in entry.theirs if name in stored and (fault := _unfit(name, stored[name]))]
    unexpected = sorted(stored.keys() - {name for entry in entries for name in entry.theirs})
    lists = {"missing": missing, "unexpected": unexpected, "wrong": wrong + unfit}
    if faults := "; ".join(f"{what} {_listed(names)}" for what, names in lists.items() if names):
        only_head = all(name.startswith(("head", "pre_logits")) for names in lists.values() for name in names)
        hint = "; new_head starts a zero head instead of the stored one" if only_head else ""
        raise ValueError(f"{source} does not fit this network: {faults}{hint}")
    return state


def _unfit(name: str, value: Tensor) -> str:
    """Why these values are no weights, whatever their shape; empty where they are."""
    if value.dtype not in _FLOATS:
        return f"{name} of type {str(value.dtype).removeprefix('torch.')} instead of floats"
    return "" if torch.isfinite(value).all() else f"{name} with NaN or infinity in it"


def _misfits(entry: Entry, own: Tensor, stored: Mapping[str, Tensor]) -> list[str]:
    misfits = []
    for name, part in zip(entry.theirs, entry.codec.write(own.to("meta")), strict=True):
        given, shape = stored[name].shape, part.shape
        other_rows = can_resize(entry.ours) and given[:-2] == shape[:-2] and given[-1:] == shape[-1:]
        if given != shape and not (other_rows and len(given) == len(shape)):
            misfits.append(f"{name} of shape {tuple(given)} instead of {tuple(shape)}")
    return misfits


def _listed(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more


# Position tables for another image size: the learned grid is stretched, corners onto corners.
# Source: Google's ViT code, which zooms at order 1: linear, with the outermost positions kept. Resizing with half-
# pixel centres, as other ports do, gives other numbers.


def can_resize(name: str) -> bool:
    """Whether this parameter is a position table whose rows may differ from the network's."""
    return name.startswith(("position.tables.", "position.x.", "position.y."))


def resize_position(name: str, table: Tensor, layout: Layout, grid: tuple[int, int] | None) -> Tensor:
    """A position table of any grid, fitted to `layout`; other parameters come back as they are.

    `grid` is the rows and columns that the table was learned on; None takes a table with the right number of rows as
    it is, and any other for a square. Raises: ValueError where the number of rows says neither.
    """
    if not can_resize(name):
        return table
    if not name.startswith("position.tables."):
        return resize_grid(table, (len(table), 1), (layout.grid[1 if name.startswith("position.x.") else 0], 1))
    if len(table) == layout.tokens and grid in (None, layout.grid):
        return table
    old = grid or _square(len(table) - layout.prefix) or layout.grid
    if len(table) != layout.prefix + old[0] * old[1]:
        raise ValueError(
            f"a position table of {len(table)} rows is not {layout.prefix} for the prefix and a grid of "
            f"{old[0]} x {old[1]}: give grid, the rows and columns of patches in the network that learned it"
        )
    return torch.cat([table[: layout.prefix], resize_grid(table[layout.prefix :], old, layout.grid)])


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bilinear, corner-aligned. Shapes: (old rows * old columns, D) -> (new rows * new columns, D)."""
    maps = table.double().T.unflatten(1, old)[None]
    resized = torch.nn.functional.interpolate(maps, new, mode="bilinear", align_corners=True)
    return resized[0].flatten(1).T.to(table.dtype)


def _square(count: int) -> tuple[int, int] | None:
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None


def _with_row_for_cls(stored: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Some of timm's networks have no position for the cls token: the same as a row of zeros."""
    table = stored.get("pos_embed")
    if table is None or "cls_token" not in stored or table.ndim != 3:
        return stored
    if table.shape[1] == layout.tokens or not _square(table.shape[1]):
        return stored
    return stored | {"pos_embed": torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)}
