"""Frozen features of a network over a split of a data set: each image goes through it once."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from vitexp.data.module import ShardData, Split


@torch.no_grad()
def read_features(
    network: nn.Module, data: ShardData, split: Split, device: str, middle: int | None = None
) -> tuple[Tensor, Tensor]:
    """Features and labels in the order of the samples; the network is in eval mode and on `device`.

    `middle` shows it the middle square of so many pixels. Shapes: (n, D), (n).
    """
    start = (data.size - middle) // 2 if middle else 0
    seen = slice(start, start + middle) if middle else slice(None)
    read = cast(Callable[[Tensor], Tensor], network.features)
    parts = []
    for batch in data.eval_loader(split):
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, torch.device(device), 0), 0)
        parts.append((read(batch.images[:, :, seen, seen]).float().cpu(), batch.labels.cpu(), batch.samples.cpu()))
    features, labels, samples = (torch.cat(column) for column in zip(*parts, strict=True))
    order = samples.argsort()
    return features[order], labels[order]
