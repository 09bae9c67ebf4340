"""How a weight format names and lays out each parameter, and how stored weights are matched to a network.

A format is a list of rules. A rule turns one of our parameter names into the names in a file, three of them where a
file keeps query, key and value apart, and says how the values lie there. Read and written by the same rule, a round
trip is exact.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.nn.config import ViTConfig
from vitexp.nn.position import Layout
from vitexp.weights.read import shown

# Position tables for another image size: the learned grid is stretched, corners onto corners.
# Source: Google's ViT code, which zooms at order 1: linear, with the outermost positions kept. Resizing with half-
# pixel centres, as other ports do, gives other numbers.

_KINDS = ("tables", "x", "y")


def can_resize(name: str) -> bool:
    """Whether this parameter is a position table whose rows may differ from the network's."""
    return name.startswith(tuple(f"position.{kind}." for kind in _KINDS))


def resize_position(name: str, table: Tensor, layout: Layout, grid: tuple[int, int] | None) -> Tensor:
    """A position table of any grid, fitted to `layout`; other parameters come back as they are.

    `grid` is the rows and columns that the table was learned on; None takes a table with the right number of rows as
    it is, and any other for a square. Raises: ValueError where the number of rows says neither.
    """
    if not can_resize(name):
        return table
    kind = name.split(".")[1]
    if kind == "tables":
        return _resize_table(table, layout, grid)
    return resize_grid(table, (len(table), 1), (layout.grid[1 if kind == "x" else 0], 1))


def _resize_table(table: Tensor, layout: Layout, grid: tuple[int, int] | None) -> Tensor:
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


def is_square(count: int) -> bool:
    """Whether this many patches can be a square grid."""
    return _square(count) is not None


def _square(count: int) -> tuple[int, int] | None:
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Options that every format can carry: sizes, which show in the shapes, and what only training sees.
_FREE = ("arch", "image_size", "classes", "head_bias", "dropout")


@dataclass(frozen=True)
class Codec:
    """Two layouts of the same values: the file's to ours, and back."""

    read: Callable[..., Tensor]
    write: Callable[[Tensor], tuple[Tensor, ...]]


SAME = Codec(lambda stored: stored, lambda own: (own,))
ONE_MORE_AXIS = Codec(lambda stored: stored.squeeze(0), lambda own: (own[None],))


@dataclass(frozen=True)
class Rule:
    """`pattern` matches our name whole; `theirs` are filled with its groups, numbers counted from `first`."""

    pattern: str
    theirs: tuple[str, ...]
    codec: Codec = SAME
    first: int = 0


@dataclass(frozen=True)
class Entry:
    """One parameter: our name, and the name or names that hold it in a file."""

    ours: str
    theirs: tuple[str, ...]
    codec: Codec


def entries_of(names: Iterable[str], rules: Sequence[Rule]) -> list[Entry]:
    """An entry per parameter. Every name must have a rule: what a format lacks is refused before, by its option."""
    return [_entry_of(name, rules) for name in names]


def _entry_of(name: str, rules: Sequence[Rule]) -> Entry:
    for rule in rules:
        if match := re.fullmatch(rule.pattern, name):
            groups = [int(group) + rule.first if group.isdigit() else group for group in match.groups()]
            return Entry(name, tuple(template.format(*groups) for template in rule.theirs), rule.codec)
    raise AssertionError(f"{name} has no rule in this format")


def check_expressible(config: ViTConfig, allowed: Mapping[str, Sequence[Any]], format_name: str) -> None:
    """Refuses, by the name of the option, a network that a format has no words for.

    An option that is neither free nor in `allowed` must have its default. Raises: ValueError.
    """
    for field in fields(config):
        value, words = getattr(config, field.name), allowed.get(field.name, (field.default,))
        if field.name not in _FREE and value not in words:
            known = " or ".join(map(str, words))
            raise ValueError(f"{format_name} weights cannot express {field.name} {value}, only {known}")


def match(model: nn.Module, entries: Sequence[Entry], stored: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The stored values under our names; position tables may still have another number of rows.

    Raises: ValueError that names what is missing, unexpected and of the wrong shape, all in one sentence.
    """
    own = model.state_dict()
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    unfit = [fault for entry in entries for name in entry.theirs if (fault := _unfit(name, stored.get(name)))]
    wrong: list[str] = []
    for entry in entries:
        absent = [name for name in entry.theirs if name not in stored]
        misfits = [] if absent else _misfits(entry, own[entry.ours], stored)
        if not absent and not misfits:
            state[entry.ours] = entry.codec.read(*(stored[name] for name in entry.theirs))
        missing += absent
        wrong += misfits
    unexpected = sorted(stored.keys() - {name for entry in entries for name in entry.theirs})
    _refuse(source, missing, unexpected, wrong + unfit)
    return state


def _unfit(name: str, value: Tensor | None) -> str:
    """Why these values are no weights, whatever their shape; empty where they are."""
    if value is None:
        return ""
    if value.dtype not in _FLOATS:
        return f"{name} of type {str(value.dtype).removeprefix('torch.')} instead of floats"
    return "" if torch.isfinite(value).all() else f"{name} with NaN or infinity in it"


def _misfits(entry: Entry, own: Tensor, stored: Mapping[str, Tensor]) -> list[str]:
    wanted = [part.shape for part in entry.codec.write(own.to("meta"))]
    misfits = []
    for name, shape in zip(entry.theirs, wanted, strict=True):
        given = stored[name].shape
        other_rows = can_resize(entry.ours) and given[:-2] == shape[:-2] and given[-1:] == shape[-1:]
        if given != shape and not (other_rows and len(given) == len(shape)):
            misfits.append(f"{name} of shape {tuple(given)} instead of {tuple(shape)}")
    return misfits


def _refuse(source: str, missing: Sequence[str], unexpected: Sequence[str], wrong: Sequence[str]) -> None:
    lists = {"missing": missing, "unexpected": unexpected, "wrong": wrong}
    faults = [f"{what} {_listed(names)}" for what, names in lists.items() if names]
    if not faults:
        return
    only_head = all(name.startswith(("head", "pre_logits")) for names in lists.values() for name in names)
    hint = "; new_head starts a zero head instead of the stored one" if only_head else ""
    raise ValueError(f"{source} does not fit this network: {'; '.join(faults)}{hint}")


def _listed(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more


def written(model: nn.Module, entries: Sequence[Entry]) -> dict[str, Tensor]:
    """The network's values under the names of a format."""
    state = model.state_dict()
    stored: dict[str, Tensor] = {}
    for entry in entries:
        parts = entry.codec.write(state[entry.ours])
        stored |= {name: part.contiguous() for name, part in zip(entry.theirs, parts, strict=True)}
    return stored
