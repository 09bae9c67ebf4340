"""What a network answered over a split: which images were measured and which of them it got right, on all ranks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from vitexp.data.module import ShardData, Split
from vitexp.eval.fewshot import Draws, draws
from vitexp.words import listed


def read_features(
    network: nn.Module,
    data: ShardData,
    split: Split,
    device: str | torch.device,
    middle: int | None = None,
    samples: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """Features and labels in the order of the samples, each image once; the network is in eval mode and on `device`.

    `middle` shows it the middle square of this many pixels; `samples` are the numbers of the images to read, ascending,
    where not all of the split are. Shapes: (n, D), (n).
    """
    return read_outputs(cast(Callable[[Tensor], Tensor], network.features), data, split, device, middle, samples)


@torch.no_grad()
def read_outputs(
    read: Callable[[Tensor], Tensor],
    data: ShardData,
    split: Split,
    device: str | torch.device,
    middle: int | None = None,
    samples: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """The same of any function of images, such as a whole network, whose outputs are logits."""
    start = (data.size - middle) // 2 if middle else 0
    seen = slice(start, start + middle if middle else None)
    parts = []
    for batch in data.eval_loader(split, samples):
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, torch.device(device), 0), 0)
        parts.append((read(batch.images[:, :, seen, seen]).float().cpu(), batch.labels.cpu(), batch.samples.cpu()))
    features, labels, numbers = (_everywhere(torch.cat(column), device) for column in zip(*parts, strict=True))
    order = numbers.argsort()
    return features[order], labels[order]


def read_shots(
    network: nn.Module,
    data: ShardData,
    device: str | torch.device,
    *,
    shots: Sequence[int],
    seeds: Sequence[int | None],
    fewer: bool = False,
    middle: int | None = None,
) -> tuple[Draws, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """What few-shot probes are fitted on and measured with: features and labels of the training images that some draw
    takes, of no others, and of all test images; and which of these training images each draw takes.

    Shapes: (n, D), (n), (m, D), (m).
    """
    drawn = draws(torch.from_numpy(data.labels("train")), data.classes, shots, seeds, fewer)
    rows, places = torch.cat(list(drawn.values())).unique(return_inverse=True)
    train = read_features(network, data, "train", device, middle, data.samples("train")[rows.numpy()])
    split = places.split([len(one) for one in drawn.values()])
    return dict(zip(drawn, split, strict=True)), (*train, *read_features(network, data, "test", device, middle))


def _everywhere(rows: Tensor, device: str | torch.device) -> Tensor:
    """The rows of all ranks, on the CPU."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    return torch.cat(gather_all_tensors(rows.to(device))).cpu()


def gathered(parts: list[Any]) -> list[Any]:
    """The parts of all ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return parts
    everywhere: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everywhere, parts)
    return [part for rank in everywhere for part in rank]


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


@dataclass(frozen=True)
class Measured:
    """The images that were measured, in the order of their sample numbers."""

    samples: np.ndarray
    """int64 (n,)."""
    right: np.ndarray | None
    """bool (n,): whether the class was right; None where no classes are predicted."""


Part = tuple[Tensor, Tensor | None]
"""The answers to a batch: its samples, int64 (B,), and whether each was right, bool (B,)."""


def collected(parts: list[Part]) -> Measured:
    """The answers of one measurement on all ranks; nothing waits for the device before."""
    here = [(samples.cpu(), right if right is None else right.cpu()) for samples, right in _joined(parts)]
    everywhere = _joined(gathered(here))
    samples, right = everywhere[0] if everywhere else (torch.empty(0, dtype=torch.int64), None)
    order = samples.argsort()
    numbers = samples[order].numpy()
    assert len(np.unique(numbers)) == len(numbers), "an image was measured twice"
    return Measured(numbers, None if right is None else right[order].numpy())


def _joined(parts: list[Part]) -> list[Part]:
    """The parts as one, where there are any."""
    rights = [right for _, right in parts if right is not None]
    joined = torch.cat(rights) if rights else None
    return [(torch.cat([samples for samples, _ in parts]), joined)] if parts else []
