"""What one network has learned to look at, as plain arrays: everything `vitexp inspect` shows of it."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vitexp.data.module import ShardData
from vitexp.eval import attention_maps as maps
from vitexp.eval.representations import by_distance, hsic, linear_cka, match_heads, offset_profile
from vitexp.nn.stem import PatchEmbedding
from vitexp.nn.vit import ViT
from vitexp.tools.network import Opened

SHOWN_IMAGES = 16
"""Of which attention is drawn."""
_AT_ONCE = 8  # the attention of one image in B/16 takes 22 MB
_COMPARED = 32  # images whose representations are compared at a time


class NoAttentionError(ValueError):
    """The network has no tokens that attend to each other."""


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a ViT are, of ours or of timm's. `axial`: its layers go along rows, then along columns."""

    network: Any
    blocks: Sequence[nn.Module]
    grid: tuple[int, int]
    prefix: int
    reads_class: bool
    axial: bool
    pixels: float
    weighs: bool = False
    """Whether the readout is a sum of patches by weights of its own."""

    @property
    def tokens(self) -> int:
        """T = P + N."""
        return self.prefix + self.grid[0] * self.grid[1]


def anatomy(opened: Opened) -> Anatomy:
    """Raises: NoAttentionError."""
    network: Any = opened.network
    if isinstance(network, ViT):
        grid, prefix, config = network.layout.grid, network.layout.prefix, network.config
        reads_class, axial, weighs = (
            config.pool == "cls",
            config.attention == "axial",
            config.pool not in ("cls", "gap"),
        )
        pixels = opened.image_size / grid[0]
        return Anatomy(network, list(network.blocks), grid, prefix, reads_class, axial, pixels, weighs)
    model: Any = getattr(network, "model", network)
    places, blocks = getattr(getattr(model, "patch_embed", None), "grid_size", None), getattr(model, "blocks", None)
    if not places or not blocks:
        raise NoAttentionError(
            f"{opened.name} has no grid of tokens that attend to each other, as a ViT has: give a ViT"
        )
    prefix, pool = getattr(model, "num_prefix_tokens", 0), getattr(model, "global_pool", "token")
    pixels = opened.image_size / places[0]
    return Anatomy(network, list(blocks), places, prefix, pool == "token", False, pixels, pool == "map")


@dataclass
class Inside:
    """What a network holds, by what is shown; `missing` says why something is not there."""

    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    heads: Tensor | None = None
    """The mean attention of each head, (L, H, T, T), by which heads of other networks are matched with these"""
    matched: bool = False
    """Whether the heads come in the order of those of another network"""


def look_inside(opened: Opened, wanted: Sequence[str], data: ShardData | None, images: int, like: Inside) -> Inside:
    """Everything in `wanted` that there is. Heads come in the order in which they attend most as those of `like`.

    Raises: NoAttentionError; ValueError where fewer than 4 images are given, or the network's attention is not known.
    """
    parts, found = anatomy(opened), Inside()
    names = ("pixels", "grid", "axial", "reads_class", "weighs")
    found.facts = {name: getattr(parts, name) for name in names}
    for what in wanted:
        try:
            if what in OF_WEIGHTS:
                OF_WEIGHTS[what](parts, opened, found)
            elif data is None:
                raise ValueError("it is about images: give --data")
        except ValueError as error:
            found.missing[what] = str(error)
    if data is not None and set(wanted) - set(OF_WEIGHTS):
        _watch(parts, data, images, found, like)
        if "offsets" not in found.numbers:
            found.missing["offsets"] = "no relative positions of vitexp's are in it"
    found.numbers = {what: found.numbers[what] for what in wanted if what in found.numbers}
    found.missing = {what: why for what, why in found.missing.items() if what in wanted}
    return found


# Of the weights alone.


@torch.no_grad()
def _similarity(parts: Anatomy, opened: Opened, found: Inside) -> None:
    """Of the vectors that are added to patches, a table each; of rotary positions, of a vector that they turn."""
    tables = _tables(parts.network) if isinstance(parts.network, ViT) else _table_of_timm(parts)
    if not tables:
        raise ValueError("no vectors are added to its patches or turn them, that could be compared")
    found.numbers["similarity"] = np.stack([maps.position_similarity(one, parts.grid).numpy() for one in tables])


def _tables(network: ViT) -> list[Tensor]:
    layout, found = network.position.layout, list[Tensor]()  # without registers, which lie nowhere
    for layer in range(layout.depth):
        table = network.position.add(torch.zeros(1, layout.tokens, layout.width), layer)[0, layout.prefix :]
        if table.any() and not any(torch.equal(table, other) for other in found):
            found.append(table)
    turned = network.position.rotate(torch.ones(1, layout.heads, layout.tokens, layout.head_width), 0)
    return found or ([] if (turned == 1).all() else [turned[0, 0, layout.prefix :]])


def _table_of_timm(parts: Anatomy) -> list[Tensor]:
    table = getattr(parts.network.model, "pos_embed", None)
    return [] if table is None else [table.detach().flatten(0, -2)[-parts.grid[0] * parts.grid[1] :]]


def _decay(parts: Anatomy, opened: Opened, found: Inside) -> None:
    if "similarity" not in found.numbers:
        _similarity(parts, opened, found)
    means, distances = by_distance(torch.from_numpy(found.numbers["similarity"]))
    found.numbers["decay"], found.facts["distances"] = means.numpy(), distances.numpy()


class _FirstKernel(TorchFunctionMode):
    """Keeps the first kernel that is laid over colours, as it is used: standardised where it is."""

    kernel: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.kernel is None and func is F.conv2d and args[1].shape[1] == 3:
            self.kernel = args[1].detach()
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _filters(parts: Anatomy, opened: Opened, found: Inside) -> None:
    """Of the patch embedding; of a hybrid, of its first convolution."""
    embedding = getattr(parts.network.stem, "embedding", None) if isinstance(parts.network, ViT) else None
    weight = embedding.weight if isinstance(embedding, PatchEmbedding) else None
    if weight is None or weight.shape[1] != 3:
        with _FirstKernel() as watch:
            parts.network(torch.zeros(1, 3, opened.image_size, opened.image_size))
        weight = watch.kernel
    if weight is None:
        raise ValueError("it has no filters of colours")
    filters, shares = maps.principal_filters(weight)
    found.numbers["filters"], found.facts["shares"] = filters.numpy(), shares.numpy()
    found.facts["stem"] = "patch embedding" if weight.shape[-1] == parts.pixels else "first convolution"


OF_WEIGHTS: dict[str, Callable[[Anatomy, Opened, Inside], None]] = {
    "similarity": _similarity,
    "decay": _decay,
    "filters": _filters,
}


# While it runs.


class _Sums:
    """Means over images that come in batches."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.images: dict[str, int] = {}

    def add(self, name: str, mean: Tensor, images: int) -> None:
        self.sums[name] = self.sums.get(name, torch.zeros(())) + mean.double() * images
        self.images[name] = self.images.get(name, 0) + images

    def mean(self, name: str) -> Tensor:
        return self.sums[name] / self.images[name]


def _watch(parts: Anatomy, data: ShardData, images: int, found: Inside, like: Inside) -> None:
    sums, seen, layers = _Sums(), defaultdict[str, list[Tensor]](list), list[list[Tensor]]()
    places: dict[str, Any] = {"prefix": parts.prefix, "reads_class": parts.reads_class}
    for batch in _batches(data, images):
        with ExitStack() as stack:
            caught = _listen(parts, sums, len(batch), stack)
            attention = maps.watch_attention(
                parts.network, batch, parts.tokens, len(parts.blocks), parts.grid if parts.axial else None
            )
        distance = maps.mean_attention_distance(attention, parts.grid, prefix=parts.prefix, patch_pixels=parts.pixels)
        sums.add("distance", distance, len(batch))
        sums.add("heads", torch.stack([layer.mean(dim=0) for layer in attention]), len(batch))
        if sums.images["distance"] <= SHOWN_IMAGES:  # a multiple of those at once
            seen["pictures"].append((batch + 1) / 2)
            seen["rollout"].append(maps.attention_rollout(attention, parts.grid, **places))
            seen["attention"].append(maps.readout_attention(attention[-1], parts.grid, **places))
        layers.append(caught)
        _compare(layers, sums, _COMPARED)
    _compare(layers, sums, 4)
    found.heads, distance = sums.mean("heads").float(), sums.mean("distance")
    order = torch.arange(distance.shape[1]).expand_as(distance)
    if like.heads is not None and like.facts["grid"] == parts.grid:
        heads, others = found.heads, like.heads
        if heads.shape != others.shape:  # other class tokens and registers: by the attention between patches alone
            patches = parts.grid[0] * parts.grid[1]
            heads, others = heads[..., -patches:, -patches:], others[..., -patches:, -patches:]
        if heads.shape == others.shape:
            order, found.matched = match_heads(others, heads), True
    found.numbers["distance"] = distance.gather(1, order).numpy()
    found.numbers |= {what: torch.cat(seen[what]).numpy() for what in ("rollout", "attention")}
    if "hsic" in sums.sums:
        found.numbers["cka"] = linear_cka(sums.mean("hsic")).numpy()
    if "bias 0" in sums.sums:
        biases = torch.stack([sums.mean(f"bias {layer}") for layer in range(len(parts.blocks))])
        found.numbers["offsets"] = offset_profile(biases, parts.network.position.layout.prefix).mean(dim=1).numpy()
    found.facts |= {
        "images": sums.images["distance"],
        "pictures": torch.cat(seen["pictures"]).permute(0, 2, 3, 1).numpy(),
    }
    found.facts["even"] = float(maps.patch_distances(parts.grid).sum(dim=1).mean()) / parts.tokens * parts.pixels


def _listen(parts: Anatomy, sums: _Sums, images: int, stack: ExitStack) -> list[Tensor]:
    """What enters the first layer and what leaves each comes into the list; what positions add to logits into sums."""
    caught: list[Tensor] = []
    hooks = [parts.blocks[0].register_forward_pre_hook(lambda _, given: caught.append(given[0].flatten(1)))]
    hooks += [block.register_forward_hook(lambda *given: caught.append(given[-1].flatten(1))) for block in parts.blocks]
    for hook in hooks:
        stack.callback(hook.remove)
    position = parts.network.position if isinstance(parts.network, ViT) else None
    if position is not None and type(position).has_bias():
        position.bias = functools.partial(_spy, position.bias, sums, images)
        stack.callback(delattr, position, "bias")
    return caught


def _spy(bias: Callable[[Tensor, int], Tensor], sums: _Sums, images: int, query: Tensor, layer: int) -> Tensor:
    added = bias(query, layer)
    sums.add(f"bias {layer}", added.mean(dim=0), images)
    return added


def _compare(layers: list[list[Tensor]], sums: _Sums, least: int) -> None:
    """Compares the representations of so many images at least, and forgets them."""
    if (images := sum(len(one[0]) for one in layers)) >= least:
        sums.add("hsic", hsic([torch.cat(each) for each in zip(*layers, strict=True)]), images)
        layers.clear()


def _batches(data: ShardData, images: int) -> Iterator[Tensor]:
    """The first images of the test split, or as many as there are."""
    for batch in data.eval_loader("test"):
        shown = data.on_after_batch_transfer(batch, 0).images[:images]
        images -= len(shown)
        yield shown
        if not images:
            return


@functools.lru_cache(maxsize=1)
def images_of(shards: str, view: Any, size: int) -> ShardData:
    """The images to look at; one object for the networks of a study."""
    return ShardData(shards=shards, batch_size=_AT_ONCE, image_size=size, val_fraction=0.0, eval_view=view)
