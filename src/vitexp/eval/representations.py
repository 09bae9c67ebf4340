"""How alike the layers of a network are, which heads of two networks play the same part, and what positions say.

Numbers about one network are comparable over seeds only where a head means the same in each: heads come in no order.
"""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitexp.eval.attention_maps import patch_distances


def hsic(layers: Sequence[Tensor]) -> Tensor:
    """The unbiased estimate of HSIC between the representations of each pair of layers, with linear kernels.

    Being unbiased, it may be averaged over batches of any size from 4 images on, where the plain estimate grows with
    the width of a layer. Shapes: layers of (B, D) -> (L, L). Source: Song et al., "Feature Selection via Dependence
    Maximization" (2012), equation 5; over batches: Nguyen, Raghu and Kornblith (2021).
    Raises: ValueError for fewer than 4 images.
    """
    images = len(layers[0])
    if images < 4:
        raise ValueError(f"representations of {images} images are given; to compare layers takes at least 4")
    grams = torch.stack([_gram(layer) for layer in layers])
    grams.diagonal(dim1=1, dim2=2).zero_()
    rows = grams.sum(dim=2)
    totals = rows.sum(dim=1)
    pairs = torch.einsum("iab,jab->ij", grams, grams)
    pairs += totals[:, None] * totals / ((images - 1) * (images - 2))
    pairs -= 2 / (images - 2) * rows @ rows.T
    return pairs / (images * (images - 3))


def _gram(layer: Tensor) -> Tensor:
    wide = layer.double()
    wide = wide - wide.mean(dim=0)  # changes nothing but the rounding
    return wide @ wide.T


def linear_cka(similarities: Tensor) -> Tensor:
    """Linear CKA of each pair of layers from their (mean) `hsic`: 1 where they hold the same up to rotation and scale.

    The estimate can fall below 0, and its error can lift it above 1. Shapes: (L, L) -> (L, L).
    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited" (2019).
    """
    own = similarities.diagonal().clamp_min(0).sqrt()
    return similarities / (own[:, None] * own)


def match_heads(reference: Tensor, maps: Tensor) -> Tensor:
    """For each head of the reference the head of another network that attends most alike, one to one in each layer.

    Alike is the mean over queries of half the absolute difference of their mean attention to the same images (the
    total variation); the best assignment of all heads of a layer is taken (Hungarian method).
    Shapes: (L, H, T, T) each -> (L, H), numbers of heads in `maps`.
    """
    costs = torch.cdist(reference.flatten(2), maps.flatten(2), p=1)
    return torch.tensor([linear_sum_assignment(cost)[1].tolist() for cost in costs.cpu().numpy()])


def by_distance(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """The mean similarity of two positions by how far apart they are, in steps of the grid, and these distances.

    Shapes: (..., rows, columns, rows, columns) -> (..., distances), (distances).
    """
    distances, which = (
        patch_distances((similarity.shape[-4], similarity.shape[-3])).round(decimals=9).unique(return_inverse=True)
    )
    flat = similarity.flatten(-4)
    sums = torch.zeros(*flat.shape[:-1], len(distances), dtype=flat.dtype)
    sums.index_add_(-1, which.flatten(), flat)
    return sums / which.flatten().bincount(), distances


def offset_profile(bias: Tensor, prefix: int) -> Tensor:
    """What a relative position adds to the logits, by offset (key index - query index) between patches.

    Each query's mean over the patches is taken off first, because a softmax does not see it.
    Shapes: (..., T, T) -> (..., 2N - 1), for the offsets 1 - N to N - 1.
    """
    logits = bias[..., prefix:, prefix:].double()
    logits = logits - logits.mean(dim=-1, keepdim=True)
    reach = logits.shape[-1] - 1
    means = [logits.diagonal(offset, -2, -1).mean(dim=-1) for offset in range(-reach, reach + 1)]
    return torch.stack(means, dim=-1)
