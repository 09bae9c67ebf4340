"""Frozen features of a network over a split of a data set: each image goes through it once, on any number of ranks."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitexp.data.module import ShardData, Split


@torch.no_grad()
def read_features(
    network: nn.Module, data: ShardData, split: Split, device: str | torch.device, middle: int | None = None
) -> tuple[Tensor, Tensor]:
    """Features and labels in the order of the samples, each image once; the network is in eval mode and on `device`.

    `middle` shows it the middle square of so many pixels. Shapes: (n, D), (n).
    """
    start = (data.size - middle) // 2 if middle else 0
    seen = slice(start, start + middle) if middle else slice(None)
    read = cast(Callable[[Tensor], Tensor], network.features)
    parts = []
    for batch in data.eval_loader(split):
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, torch.device(device), 0), 0)
        parts.append((read(batch.images[:, :, seen, seen]).float().cpu(), batch.labels.cpu(), batch.samples.cpu()))
    features, labels, samples = (torch.cat(column) for column in zip(*gathered(parts), strict=True))
    order = samples.argsort()
    return features[order], labels[order]


def gathered(parts: list[Any]) -> list[Any]:
    """The parts of all ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return parts
    everywhere: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everywhere, parts)
    return [part for rank in everywhere for part in rank]
