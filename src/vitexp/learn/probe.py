"""Features and predictions of a trained network over a whole split, each image once, on any number of ranks."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vitexp.data.module import ShardData, Split
from vitexp.eval.fewshot import fewshot_accuracy
from vitexp.learn.classify import Classify
from vitexp.record import write_atomically


def fewshot_metrics(module: Classify, data: ShardData, shots: Sequence[int], draws: int) -> dict[str, float]:
    """Mean test accuracy of few-shot linear probes, as `fewshot_5`; the shots come from the training subset."""
    train_x, train_y = features_of(module, data, "train")
    test_x, test_y = features_of(module, data, "test")
    found = fewshot_accuracy(
        train_x, train_y, test_x, test_y, shots=shots, seeds=range(draws), classes=module.config.classes
    )
    return {f"fewshot_{count}": sum(found[count, seed] for seed in range(draws)) / draws for count in shots}


@torch.no_grad()
def features_of(module: Classify, data: ShardData, split: Split) -> tuple[Tensor, Tensor]:
    """Frozen features and labels of a split, in the order of the samples. Shapes: (n, D), (n)."""
    module.eval()
    read = cast(Callable[[Tensor], Tensor], module.network.features)
    parts = []
    for batch in data.eval_loader(split):
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, module.device, 0), 0)
        parts.append((read(batch.images).float().cpu(), batch.labels.cpu(), batch.samples.cpu()))
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


def write_predictions(batches: Any, data: ShardData, path: Path) -> Path:
    """One CSV line per image: its key, label, the class predicted and the probability of each class."""
    rows = gathered(list(batches or []))
    samples = torch.cat([row["samples"] for row in rows])
    labels = torch.cat([row["labels"] for row in rows])
    probabilities = torch.cat([row["probabilities"] for row in rows])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["sample", "label", "predicted", *(f"p_{name}" for name in data.class_names)])
    for i in samples.argsort().tolist():
        chances = [f"{p:.6f}" for p in probabilities[i].tolist()]
        writer.writerow([int(samples[i]), int(labels[i]), int(probabilities[i].argmax()), *chances])
    write_atomically(path, text.getvalue())
    return path
