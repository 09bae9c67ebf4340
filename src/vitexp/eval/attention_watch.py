"""Attention as a network really computes it: its softmaxes are watched while it runs, so no variant is computed twice.

Whatever shapes the logits (relative offsets, turned queries, a window) is in what is seen, for networks of any origin.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SOFTMAXES = (torch.softmax, Tensor.softmax, F.softmax)


@torch.no_grad()
def watch_attention(network: Callable[[Tensor], Tensor], images: Tensor, tokens: int, layers: int) -> list[Tensor]:
    """The probabilities of each layer. Shapes: images (B, 3, rows, columns) -> layers of (B, H, T, T).

    Raises: ValueError where a network of so many tokens and layers does not look from every token at every token, once
    a layer: along rows and columns, or with other tokens in some layers.
    """
    with _Watch() as watch:
        network(images)
    seen = [weights for weights in watch.seen if weights.ndim == 4 and weights.shape[-2:] == (tokens, tokens)]
    if len(seen) != layers:
        raise ValueError(
            f"the network compares all of its {tokens} tokens in {len(seen)} of {layers} layers: its attention is not "
            "full, and has no such picture"
        )
    return seen


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
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    return logits.softmax(dim=-1)
