"""What a run starts from, as digests: its initial weights, and the order in which it sees the images at first."""

import hashlib
from typing import Any

from torch import Tensor, nn

from vitexp.data.module import ShardData

_HEX = 16


def start_of(network: nn.Module, data: ShardData) -> dict[str, Any]:
    """The start of a run in words and numbers, for the study wing, which compares it with other runs'."""
    return {
        "weights": {name: weight_digest(parameter.detach()) for name, parameter in network.named_parameters()},
        "order": order_digest(data),
        "views": f"augment {data.augment}, mix {data.mix}, {data.size} pixels, seed {data.seed}",
    }


def weight_digest(weight: Tensor) -> dict[str, Any]:
    """The shape of a parameter and its values: the value itself where all are one, otherwise the digest of a draw."""
    weight = weight.cpu().contiguous()
    first = weight.flatten()[0].item()
    constant = bool((weight == first).all())
    values = f"constant {first:g}" if constant else hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:_HEX]
    return {"shape": list(weight.shape), "values": values}


def order_digest(data: ShardData) -> str:
    """The first epoch's images in their order, cut into its batches."""
    samples = data.epoch_order("train").samples(0, 0, data.train_count)
    return hashlib.sha256(f"{data.batch_size}:".encode() + samples.astype("<i8").tobytes()).hexdigest()[:_HEX]
