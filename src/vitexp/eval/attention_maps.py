"""What attention and position embeddings look at, as numbers: distance, rollout, similarity.

Attention comes as one tensor of probabilities per layer, each (B, H, T, T): rows are queries and sum to 1, columns are
keys. Tokens run prefix first, then the grid (rows, columns) in raster order.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def principal_filters(weight: Tensor, count: int = 28) -> tuple[Tensor, Tensor]:
    """What a patch embedding looks for: the first principal components of its filters, as small pictures, and the share
    of the variance about their mean that each explains.

    Each component has norm 1, and its sign is such that its largest value is positive.
    Shapes: (D, 3, rows, columns) -> (count, 3, rows, columns), (count). Source: ViT paper, Fig. 7 (left).
    """
    filters = weight.detach().double().flatten(1)
    _, values, components = torch.linalg.svd(filters - filters.mean(dim=0), full_matrices=False)
    components, shares = components[:count], (values**2 / (values**2).sum())[:count]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return (components * largest.sign()).unflatten(1, weight.shape[1:]), shares


# Attention as a network really computes it: its softmaxes are watched while it runs. Whatever shapes the logits
# (relative offsets, turned queries, a window) is in what is seen, for networks of any origin.

_SOFTMAXES = (torch.softmax, Tensor.softmax, F.softmax)


@torch.no_grad()
def watch_attention(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    tokens: int,
    layers: int,
    axial: tuple[int, int] | None = None,
) -> list[Tensor]:
    """The attention probabilities of each layer, as the network computes them.

    `tokens` and `layers` are those of the network; a ViT of vitexp has them in its `layout`. Where layers go along the
    rows and then the columns of a grid, `axial` is that grid, and each layer gives two: 0 to tokens off the line.
    Shapes: images (B, 3, rows, columns) -> layers of (B, H, T, T).

    >>> vit = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10))
    >>> [layer.shape for layer in watch_attention(vit, torch.zeros(1, 3, 8, 8), vit.layout.tokens, vit.layout.depth)][0]
    torch.Size([1, 4, 17, 17])

    Raises: ValueError where a network of this many tokens and layers does not let every token attend to every token,
    once a layer: with other tokens in some layers, or along lines that `axial` does not say.
    """
    with _Watch() as watch:
        network(images)
    seen = [weights for weights in watch.seen if weights.ndim == 4]
    if axial:
        prefix = tokens - math.prod(axial)
        lines = [weights for weights in seen if weights.shape[-1] - weights.shape[-2] == prefix]
        asked = [weights for weights in seen if weights.shape[-2:] == (prefix, tokens)] if prefix else []
        halves = itertools.zip_longest(lines[: 2 * layers], asked[: 2 * layers])
        seen, layers = [_whole(*both, axial, half % 2 == 0) for half, both in enumerate(halves)], 2 * layers
    seen = [weights for weights in seen if weights.shape[-2:] == (tokens, tokens)]
    if len(seen) != layers:
        where = f"compares all of its {tokens} tokens in {len(seen)} of {layers} layers"
        raise ValueError(f"the network {where}: its attention is not full, and has no such picture")
    return seen


def _whole(lines: Tensor, asked: Tensor | None, grid: tuple[int, int], along_rows: bool) -> Tensor:
    """Attention within rows, or columns, as attention between all tokens; `asked` is that of the prefix.

    Shapes: (B, H * rows, columns, P + columns), or (B, H * columns, rows, P + rows), and (B, H, P, T) -> (B, H, T, T).
    """
    rows, columns = grid
    to_prefix, lines = lines.tensor_split([lines.shape[-1] - lines.shape[-2]], dim=-1)
    across = torch.eye(rows if along_rows else columns, dtype=lines.dtype, device=lines.device)
    spelled = "bhrcd,rs->bhrcsd" if along_rows else "bhcrs,cd->bhrcsd"
    patches = torch.einsum(spelled, lines.unflatten(1, (-1, len(across))), across).flatten(4).flatten(2, 3)
    if asked is None:
        return patches
    to_prefix = to_prefix.unflatten(1, (-1, len(across)))
    to_prefix = (to_prefix if along_rows else to_prefix.transpose(2, 3)).flatten(2, 3)
    return torch.cat([asked, torch.cat([to_prefix, patches], dim=-1)], dim=2)


class _Watch(TorchFunctionMode):
    """Keeps the probabilities of every attention that is computed, written out or fused."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SOFTMAXES:
            self.seen.append(result)
        elif func is F.scaled_dot_product_attention:
            self.seen.append(_probabilities(*args, **(kwargs or {})))
        return result


def _probabilities(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None, **_: Any
) -> Tensor:
    """What the fused kernel does not show."""
    logits = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    return logits.softmax(dim=-1)


def mean_attention_distance(
    attention: Sequence[Tensor], grid: tuple[int, int], *, prefix: int, patch_pixels: float, renormalise: bool = False
) -> Tensor:
    """How far each head looks, in pixels: Euclidean distance from query to key, weighted by the attention.

    Averaged over patch queries and images. `patch_pixels` is the image's pixels per step of the grid, 16 or 32 for a
    hybrid as well. The paper does not say what becomes of the prefix. Here it is dropped both as query and as key, and
    what a patch gives to it counts as distance 0, as in common re-implementations; `renormalise` shares each row's
    remaining weight out to sum 1, so that a head which mostly reads the prefix is not taken for a local one.

    >>> even = torch.full((1, 2, 5, 5), 1 / 5)  # an image, 2 heads, a class token and 2 x 2 patches
    >>> mean_attention_distance([even], (2, 2), prefix=1, patch_pixels=16.0).shape
    torch.Size([1, 2])

    Shapes: layers of (B, H, T, T) -> (layers, H). Source: ViT paper, Fig. 7 and 11.
    Raises: ValueError where a layer has other tokens than the prefix and the grid.
    """
    distance = patch_distances(grid) * patch_pixels
    means = []
    for layer, weights in enumerate(attention):
        _check(weights, grid, prefix, layer)
        patches = weights[..., prefix:, prefix:].double()
        if renormalise:
            patches = patches / patches.sum(dim=-1, keepdim=True)
        means.append((patches * distance.to(patches.device)).sum(dim=-1).mean(dim=(0, 2)))
    return torch.stack(means)


def patch_distances(grid: tuple[int, int]) -> Tensor:
    """Euclidean distance between the patches of a grid, in steps of it. Shapes: (N, N)."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    distances: Tensor = (places[:, None] - places[None]).norm(dim=2)
    return distances


def attention_rollout(
    attention: Sequence[Tensor], grid: tuple[int, int], *, prefix: int, reads_class: bool | None = None
) -> Tensor:
    """How much of each patch reaches the readout, if attention alone moved information.

    Heads are averaged; half of each token stays in place for the residual path (identity added, rows scaled back to
    sum 1); layers are multiplied from first to last. Read is the row of the first prefix token, or where the network
    does not read it (`reads_class`, by default whether there is one) the mean row of the patches; the prefix's own
    share is dropped and not made up for.

    >>> even = torch.full((1, 2, 5, 5), 1 / 5)  # an image, 2 heads, a class token and 2 x 2 patches
    >>> attention_rollout([even], (2, 2), prefix=1).shape
    torch.Size([1, 2, 2])

    Shapes: layers of (B, H, T, T) -> (B, rows, columns). Source: ViT paper, Fig. 6; Abnar and Zuidema (2020).
    Raises: ValueError where a layer has other tokens than the prefix and the grid, and without layers.
    """
    if not attention:
        raise ValueError("attention rollout needs the attention of at least 1 layer")
    steps = []
    for layer, weights in enumerate(attention):
        _check(weights, grid, prefix, layer)
        mixed = weights.double().mean(dim=1)
        steps.append((mixed + torch.eye(mixed.shape[-1], dtype=mixed.dtype, device=mixed.device)) / 2)
    flow = functools.reduce(lambda before, step: step @ before, steps)
    return _read(flow, grid, prefix, bool(prefix) if reads_class is None else reads_class)


def readout_attention(weights: Tensor, grid: tuple[int, int], *, prefix: int, reads_class: bool) -> Tensor:
    """What the readout attends to in one layer, as a mean over heads: of the class token, or of the patches alike.

    What is given to the prefix is dropped and not made up for. Shapes: (B, H, T, T) -> (B, rows, columns).
    """
    return _read(weights.double().mean(dim=1), grid, prefix, reads_class)


def _read(flow: Tensor, grid: tuple[int, int], prefix: int, reads_class: bool) -> Tensor:
    """Shapes: (B, T, T) -> (B, rows, columns)."""
    reading = flow[:, 0] if reads_class else flow[:, prefix:].mean(dim=1)
    maps: Tensor = reading[:, prefix:].unflatten(1, grid)
    return maps


def position_similarity(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cosine similarity of the position vector of each patch with that of every other.

    The table has no rows for the prefix. Shapes: (N, D) -> (rows, columns, rows, columns), so that result[r, c] is the
    picture for the patch at row r, column c. Source: ViT paper, Fig. 7 (centre) and 10.
    """
    rows, columns = grid
    if table.ndim != 2 or len(table) != rows * columns:
        raise ValueError(f"position table {tuple(table.shape)} has no row for each of {rows} x {columns} patches")
    unit = torch.nn.functional.normalize(table.double(), dim=1)
    return (unit @ unit.T).reshape(rows, columns, rows, columns)


def _check(weights: Tensor, grid: tuple[int, int], prefix: int, layer: int) -> None:
    tokens = prefix + grid[0] * grid[1]
    if weights.ndim != 4 or weights.shape[2:] != (tokens, tokens):
        given = tuple(weights.shape)
        raise ValueError(f"attention of layer {layer} has shape {given}, not (images, heads, {tokens}, {tokens})")
