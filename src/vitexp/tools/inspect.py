"""`vitexp inspect`: what networks have learned to look at, one by one or over the seeds of a study's arms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitexp.record import check_folder, write_atomically
from vitexp.stats.samples import quantile
from vitexp.tools.inside import OF_WEIGHTS, Inside, NoAttentionError, anatomy, images_of, look_inside
from vitexp.tools.network import open_chosen

Draw = Callable[[str, Mapping[str, Any], Path, str], tuple[Path, ...]]
COLUMNS = {
    "distance": ("layer", "head", "distance_pixels"),
    "similarity": ("table", "row", "column", "other_row", "other_column", "cosine"),
    "decay": ("table", "distance_patches", "cosine"),
    "offsets": ("layer", "offset", "logit"),
    "filters": ("component", "colour", "row", "column", "value"),
    "rollout": ("image", "row", "column", "share"),
    "attention": ("image", "row", "column", "share"),
    "cka": ("layer", "other_layer", "cka"),
}
"""What is shown, how the places of its numbers are called in the table, and the numbers themselves."""
_COMPARED = ("distance", "decay", "offsets", "cka")
"""Of which arm minus arm is shown."""


class Group(NamedTuple):
    """Networks that are one: the seeds of an arm, or a single one, whose seed is None."""

    name: str
    """With which the names of its files start"""
    label: str
    networks: Mapping[int | None, str]
    images: tuple[str, str] | None = None
    """The shards that they were measured on, and the view of them"""
    against: str | None = None
    """The group that it is compared with"""
    runs: Sequence[str] = ()
    """Marks of their runs, by which a page finds pictures of its own runs"""


@dataclass
class _Found:
    group: Group
    first: Inside
    values: dict[str, dict[int | None, np.ndarray]] = field(default_factory=dict)


def inspect(chosen: Any, groups: Sequence[Group], draw: Draw) -> int:
    """Computes, writes the numbers as CSV, and has them drawn."""
    wanted, folder = chosen.what or list(COLUMNS), Path(chosen.out)
    if chosen.images < 4:
        raise ValueError(f"--images is {chosen.images}; give at least 4")
    check_folder(folder)
    done: dict[str, _Found] = {}
    refusals: list[str] = []
    for group in sorted(groups, key=lambda one: one.against is not None):  # baselines come first
        try:
            base = done.get(group.against or "")
            done[group.name] = found = _look_at(group, chosen, wanted, base)
        except NoAttentionError as error:
            refusals.append(f"{group.label}: {error}")
            continue
        if group.against and not base:
            print(f"note: {group.label}: no differences: its baseline was left out")
        for why in dict.fromkeys(found.first.missing.values()):
            lacking = ", ".join(what for what, other in found.first.missing.items() if other == why)
            if chosen.what and len(groups) == 1:
                raise ValueError(f"--what {lacking}: {why}")
            print(f"note: {group.label}: no {lacking}: {why}")
        written = [*_write(found, folder, draw), *(_write_difference(found, base, folder, draw) if base else ())]
        print(f"Written: {len(written)} files, {folder / group.name}-*")
    if not done:
        raise NoAttentionError(refusals[0])
    for refusal in refusals:
        print(f"note: left out: {refusal}")
    return 0


def _look_at(group: Group, chosen: Any, wanted: Sequence[str], base: _Found | None) -> _Found:
    """Heads are matched with those of the baseline's first seed, where it has as many, or else with its own first."""
    found, own = _Found(group, Inside()), group.images or (None, "resize")
    shards, view = chosen.data or own[0], own[1]
    like = base.first if base and base.first.facts["seen"] == (shards, view) else Inside()
    for seed, network in group.networks.items():
        opened = open_chosen(chosen, network)
        anatomy(opened)  # or it is refused
        if chosen.data and not chosen.image_size:
            opened.check_size(chosen.data)
        data = images_of(shards, view, opened.image_size) if shards else None
        inside = look_inside(opened, wanted, data, chosen.images, like)
        if not found.values:
            found.first = inside
            like = like if inside.matched else inside
        for what, values in inside.numbers.items():
            found.values.setdefault(what, {})[seed] = values
    label, name = f"{group.label} with random weights" if chosen.random else group.label, group.name
    if chosen.image_size:
        label, name = f"{label}, {opened.image_size} pixels", f"{name}-{opened.image_size}px"
    found.group = group._replace(label=label, name=name)
    found.first.facts |= {"data": shards, "seen": (shards, view), "runs": group.runs}
    return found


def _write(found: _Found, folder: Path, draw: Draw) -> Iterator[Path]:
    for what, by_seed in found.values.items():
        name = f"{found.group.name}-{what}"
        if what == "filters" and len(by_seed) > 1:  # components of several networks have no mean
            seed, values = next(iter(by_seed.items()))
            by_seed, name = {seed: values}, f"{found.group.name}-seed-{seed}-{what}"
        yield from _put(found, what, by_seed, found.group.label, folder / name, draw)


def _write_difference(found: _Found, base: _Found, folder: Path, draw: Draw) -> Iterator[Path]:
    """Arm minus arm, seed by seed, of what is about the same images, heads and lengths."""
    unlike = _unlike(found.first, base.first)
    for what in _COMPARED:
        if what in unlike:
            if what in found.values and what in base.values:
                print(f"note: {found.group.label}: no difference in {what}: {unlike[what]}")
            continue
        ours, theirs = found.values.get(what, {}), base.values.get(what, {})
        alike = {seed for seed in ours.keys() & theirs.keys() if ours[seed].shape == theirs[seed].shape}
        if by_seed := {seed: values - theirs[seed] for seed, values in ours.items() if seed in alike}:
            label = f"{found.group.label} minus {base.group.label.partition(': ')[2]}"
            name = f"{found.group.name}-minus-{base.group.name.rpartition('/')[2]}-{what}"
            yield from _put(found, what, by_seed, label, folder / name, draw, base.group.runs)


def _unlike(one: Inside, base: Inside) -> dict[str, str]:
    """Why numbers of two networks are not subtracted, by what they are."""
    if one.facts["seen"] != base.facts["seen"]:
        return dict.fromkeys(set(_COMPARED) - OF_WEIGHTS.keys(), "the baseline was measured on other images")
    if one.facts["pixels"] != base.facts["pixels"]:
        return {"distance": "the baseline has patches of another size in pixels"}
    return {} if one.matched else {"distance": "the baseline has other heads, with which these are not matched"}


def _seeds(by_seed: Mapping[int | None, Any]) -> str:
    seeds = [seed for seed in by_seed if seed is not None]
    return f"n = {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}" if seeds else "one network"


def _put(
    found: _Found,
    what: str,
    by_seed: Mapping[int | None, np.ndarray],
    label: str,
    path: Path,
    draw: Draw,
    others: Sequence[str] = (),
) -> Iterator[Path]:
    """One picture and its table: the mean with its interval over seeds, and each seed."""
    facts = {**found.first.facts, "difference": label != found.group.label, "below": f"{label}, {_seeds(by_seed)}"}
    facts["runs"] = [*found.group.runs, *others]
    if what in OF_WEIGHTS:
        facts.pop("images", None)
    elif what in ("rollout", "attention"):
        facts["images"] = len(facts["pictures"])
    every = np.stack(list(by_seed.values()))
    mean, half = every.mean(axis=0), _half_width(every)
    *columns, value = COLUMNS[what]
    parts = {value: mean}
    if half is not None:
        parts |= {"low": mean - half, "high": mean + half}
        parts |= {f"seed_{seed}": values for seed, values in by_seed.items()}
    rows = [",".join((*columns, *parts))]
    for place in np.ndindex(mean.shape):
        at = [_place(column, number, facts, mean) for column, number in zip(columns, place, strict=True)]
        rows.append(",".join(map(str, (*at, *(float(part[place]) for part in parts.values())))))
    table = path.with_name(f"{path.name}.csv")
    write_atomically(table, "\n".join(rows) + "\n")
    yield table
    yield from draw(what, {**facts, "mean": mean, "half": half}, path.parent, path.name)


def _place(column: str, number: int, facts: Mapping[str, Any], mean: np.ndarray) -> float:
    """Offsets go from 1 - N to N - 1; distances have their lengths."""
    if column == "offset":
        return number - mean.shape[-1] // 2
    return float(facts["distances"][number]) if column == "distance_patches" else number


def _half_width(every: np.ndarray) -> np.ndarray | None:
    """Half of Student's 95 % interval over seeds, number by number; none for a single seed."""
    n = len(every)
    half: np.ndarray | None = quantile(n - 1) * every.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else None
    return half
