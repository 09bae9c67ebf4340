"""What attention and position embeddings look at, as numbers: distance, rollout, similarity.

Attention comes as one tensor of probabilities per layer, each (B, H, T, T): rows are queries and sum to 1, columns are
keys. Tokens run prefix first, then the grid (rows, columns) in raster order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def mean_attention_distance(
    attention: Sequence[Tensor],
    grid: tuple[int, int],
    *,
    prefix: int,
    patch_pixels: float,
    renormalise: bool = False,
) -> Tensor:
    """How far each head looks, in pixels: Euclidean distance from query to key, weighted by the attention.

    Averaged over patch queries and images. `patch_pixels` is the image's pixels per step of the grid, 16 or 32 for a
    hybrid as well. The paper does not say what becomes of the prefix. Here it is dropped both as query and as key, and
    what a patch gives to it counts as distance 0, as in common re-implementations; `renormalise` shares each row's
    remaining weight out to sum 1, so that a head which mostly reads the prefix is not taken for a local one.

    Shapes: layers of (B, H, T, T) -> (layers, H). Source: ViT paper, Fig. 7 and 11.
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
    return (places[:, None] - places[None]).norm(dim=2)


def attention_rollout(attention: Sequence[Tensor], grid: tuple[int, int], *, prefix: int) -> Tensor:
    """How much of each patch reaches the readout, if attention alone moved information.

    Heads are averaged; half of each token stays in place for the residual path (identity added, rows scaled back to
    sum 1); layers are multiplied from first to last. Read is the row of the first prefix token, or without a prefix
    the mean of all rows, as the network itself reads; the prefix's own share is dropped and not made up for.

    Shapes: layers of (B, H, T, T) -> (B, rows, columns). Source: ViT paper, Fig. 6; Abnar and Zuidema (2020).
    """
    flow = None
    for layer, weights in enumerate(attention):
        _check(weights, grid, prefix, layer)
        mixed = weights.double().mean(dim=1)
        step = (mixed + torch.eye(mixed.shape[-1], dtype=mixed.dtype, device=mixed.device)) / 2
        flow = step if flow is None else step @ flow
    if flow is None:
        raise ValueError("attention rollout needs the attention of at least 1 layer")
    reading = flow[:, 0] if prefix else flow.mean(dim=1)
    return reading[:, prefix:].unflatten(1, grid)


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
