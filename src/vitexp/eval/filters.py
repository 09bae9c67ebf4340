"""What a patch embedding looks for: the principal components of its filters, as small pictures."""

import torch
from torch import Tensor


def principal_filters(weight: Tensor, count: int = 28) -> tuple[Tensor, Tensor]:
    """The first components of the filters about their mean, and the share of the variance that each explains.

    Each component has norm 1, and its sign is such that its largest value is positive.
    Shapes: (D, 3, rows, columns) -> (count, 3, rows, columns), (count). Source: ViT paper, Fig. 7 (left).
    """
    filters = weight.detach().double().flatten(1)
    _, values, components = torch.linalg.svd(filters - filters.mean(dim=0), full_matrices=False)
    components, shares = components[:count], (values**2 / (values**2).sum())[:count]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return (components * largest.sign()).unflatten(1, weight.shape[1:]), shares
