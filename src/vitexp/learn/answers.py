"""What a network answered over a split: which images were measured and which of them it got right, on all ranks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vitexp.learn.features import gathered

_HEX = 16
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Measured:
    """The images that were measured, in the order of their sample numbers."""

    samples: np.ndarray
    """int64 (n,)."""
    right: np.ndarray | None
    """bool (n,): whether the class was right; None where no classes are predicted."""

    @property
    def accuracy(self) -> float:
        """The share that is right, exactly `right / images`."""
        assert self.right is not None
        return int(self.right.sum()) / len(self.right)


class Answers:
    """Collects the answers of one measurement; nothing waits for the device before its end."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor | None]] = []

    def add(self, samples: Tensor, right: Tensor | None) -> None:
        """Takes the answers to a batch. Shapes: int64 (B,), bool (B,)."""
        self._parts.append((samples, right))

    def take(self) -> Measured:
        """All ranks' answers since the last time."""
        parts, self._parts = self._parts, []
        here = [torch.cat([samples for samples, _ in parts]).cpu()] if parts else []
        bits = [torch.cat([right for _, right in parts if right is not None]).cpu()] if _has_bits(parts) else []
        everywhere = gathered([(here, bits)])
        samples = _joined([one for these, _ in everywhere for one in these], torch.int64)
        right = _joined([one for _, these in everywhere for one in these], torch.bool)
        order = samples.argsort(kind="stable")
        samples = samples[order]
        assert len(np.unique(samples)) == len(samples), "an image was measured twice"
        return Measured(samples, right[order] if len(right) == len(samples) else None)


def _has_bits(parts: list[tuple[Tensor, Tensor | None]]) -> bool:
    return any(right is not None for _, right in parts)


def _joined(tensors: list[Tensor], kind: torch.dtype) -> np.ndarray:
    return (torch.cat(tensors) if tensors else torch.empty(0, dtype=kind)).numpy()


def largest_class(labels: np.ndarray) -> float:
    """The share of the most frequent class: what is reached by always answering it."""
    return int(np.bincount(labels).max()) / len(labels)


@torch.no_grad()
def weight_sums(network: nn.Module) -> list[int]:
    """One whole number for each tensor of a network: its bits, added up. Any single changed weight changes it, and it
    is the same on every device.
    """
    sums = [_bits(value).sum(dtype=torch.int64) for value in network.state_dict().values()]
    return [int(one) for one in torch.stack(sums).tolist()]


def _bits(value: Tensor) -> Tensor:
    return value.detach().contiguous().view(_WHOLE[value.element_size()])
