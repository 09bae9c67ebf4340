"""Weights into a network, from a file or from memory, by the names of vitexp, timm, other ports and Google.

Nothing in a file is executed; `vitexp.weights.read` says how.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitexp.nn.position import Layout
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.weights.config import check_gelu, square_side
from vitexp.weights.names import FORMS, PORTS, Entry, entries_of
from vitexp.weights.parts import check_options, in_our_parts, take_in_normalisation
from vitexp.weights.read import Network, Stored, choose, read_weights, shown
from vitexp.words import listed

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
        state = {name: resize_position(name, value, model.position.layout, grid) for name, value in state.items()}
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
    if isinstance(model, ViT):
        check_options(network, model.config, source)
    tensors, notes = in_our_parts(network, source, keep_scale=bool(model.config.layer_scale))
    if network.form == "timm" and isinstance(model, ViT):
        tensors = _with_rows_of_ours(tensors, model.position.layout, model.config.registers)
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
    own, missing, wrong = model.state_dict(), list[str](), list[str]()
    for entry in entries:
        for name, part in zip(entry.theirs, entry.codec.write(own[entry.ours].to("meta")), strict=True):
            if name not in stored:
                missing.append(name)
            elif fault := _fault(stored[name], part.shape, can_resize(entry.ours)):
                wrong.append(f"{name} {fault}")
    unexpected = sorted(stored.keys() - {name for entry in entries for name in entry.theirs})
    lists = {"missing": missing, "unexpected": unexpected, "wrong": wrong}
    if faults := "; ".join(f"{what} {listed([*map(shown, names)], 6)}" for what, names in lists.items() if names):
        only_head = all(name.startswith(("head", "pre_logits")) for names in lists.values() for name in names)
        hint = "; new_head starts a zero head instead of the stored one" if only_head else ""
        raise ValueError(f"{source} does not fit this network: {faults}{hint}")
    return {entry.ours: entry.codec.read(*(stored[name] for name in entry.theirs)) for entry in entries}


def _fault(value: Tensor, wanted: torch.Size, any_rows: bool) -> str:
    """Why these values are not the weights; empty where they are."""
    given = value.shape
    same_but_rows = len(given) == len(wanted) and (given[:-2], given[-1:]) == (wanted[:-2], wanted[-1:])
    if given != wanted and not (any_rows and same_but_rows):
        return f"of shape {tuple(given)} instead of {tuple(wanted)}"
    if value.dtype not in _FLOATS:
        return f"of type {str(value.dtype).removeprefix('torch.')} instead of floats"
    return "" if torch.isfinite(value).all() else "with NaN or infinity in it"


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
    side = square_side(len(table) - layout.prefix)
    old = grid or ((side, side) if side else layout.grid)
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


def _with_rows_of_ours(stored: dict[str, Tensor], layout: Layout, registers: int) -> dict[str, Tensor]:
    """Some of timm's networks have no position for the cls token: the same as a row of zeros. Others have some for
    registers, where ours have none: added to the registers themselves they do the same."""
    table, tokens, rows = stored.get("pos_embed"), stored.get("reg_token"), layout.tokens
    if table is None or table.ndim != 3:
        return stored
    whole = square_side(table.shape[1] - layout.prefix - registers) and not square_side(table.shape[1])
    if tokens is not None and (whole or table.shape[1] == rows + registers):
        before, own, after = table.tensor_split([layout.prefix, layout.prefix + registers], dim=1)
        return stored | {"reg_token": tokens + own, "pos_embed": torch.cat([before, after], dim=1)}
    if "cls_token" not in stored or table.shape[1] == rows or not square_side(table.shape[1]):
        return stored
    return stored | {"pos_embed": torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)}
