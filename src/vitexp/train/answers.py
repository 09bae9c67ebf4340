"""What a network answered over a split: which images were measured and which of them it got right, on all ranks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vitexp.data.module import ShardData, Split


@torch.no_grad()
def read_features(
    network: nn.Module, data: ShardData, split: Split, device: str | torch.device, middle: int | None = None
) -> tuple[Tensor, Tensor]:
    """Features and labels in the order of the samples, each image once; the network is in eval mode and on `device`.

    `middle` shows it the middle square of this many pixels. Shapes: (n, D), (n).
    """
    start = (data.size - middle) // 2 if middle else 0
    seen = slice(start, start + middle if middle else None)
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


_SHOWN = 8
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def class_places(known: Sequence[str], given: Sequence[str], data: str, network: str) -> list[int]:
    """The network's class for each label of a data set.

    Raises: ValueError for a class that the network does not know, and for names that stand for several classes.
    """
    if list(known) == list(given):
        return list(range(len(given)))
    place = {name: number for number, name in enumerate(known)}
    unknown = [name for name in given if name not in place]
    if unknown:
        raise ValueError(
            f"{data} has classes that the network of {network} does not know: {listed(unknown)}; it knows "
            f"{listed(known)}: give a set that names them so (classes.txt beside the shards), or fine-tune the network"
        )
    for names in (known, given):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(
                f"the classes of {data} cannot be matched by name with those of {network}: {listed(twice)} stands for "
                "several classes; give each its own name in classes.txt beside the shards"
            )
    return [place[name] for name in given]


def check_resumed(known: Sequence[str] | None, given: Sequence[str]) -> None:
    """Training goes on with the classes that it began with. Raises: ValueError."""
    if known is not None and list(known) != list(given):
        raise ValueError(
            f"the checkpoint's classes are {listed(known)}, and those of the data {listed(given)}: training goes on "
            "with the same classes in the same order; --run.init takes the weights and begins a new head"
        )


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


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
        here = [(samples.cpu(), right if right is None else right.cpu()) for samples, right in _joined(parts)]
        everywhere = _joined(gathered(here))
        samples, right = everywhere[0] if everywhere else (torch.empty(0, dtype=torch.int64), None)
        order = samples.argsort()
        numbers = samples[order].numpy()
        assert len(np.unique(numbers)) == len(numbers), "an image was measured twice"
        return Measured(numbers, None if right is None else right[order].numpy())


def _joined(parts: list[tuple[Tensor, Tensor | None]]) -> list[tuple[Tensor, Tensor | None]]:
    """The parts as one, where there are any."""
    rights = [right for _, right in parts if right is not None]
    joined = torch.cat(rights) if rights else None
    return [(torch.cat([samples for samples, _ in parts]), joined)] if parts else []


def largest_class(labels: np.ndarray) -> float:
    """The share of the most frequent class: what is reached by always answering it."""
    return int(np.bincount(labels).max()) / len(labels)


@torch.no_grad()
def weight_sums(network: nn.Module) -> list[int]:
    """One whole number for each tensor of a network: its bits, added up. Any single changed weight changes it, and it
    is the same on every device.
    """
    bits = (value.detach().contiguous().view(_WHOLE[value.element_size()]) for value in network.state_dict().values())
    sums = [value.sum(dtype=torch.int64) for value in bits]
    return [int(one) for one in torch.stack(sums).tolist()]
