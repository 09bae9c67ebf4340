"""Probes and predictions of a trained network over whole splits, each image once, on any number of ranks."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitexp.data.keys import keys_of
from vitexp.data.module import ShardData, Split
from vitexp.eval.fewshot import fewshot_answers
from vitexp.learn.classify import Classify
from vitexp.learn.features import gathered, read_features
from vitexp.record import write_atomically

_COLUMNS = ("samples", "labels", "probabilities")


def fewshot_answers_of(
    module: Classify, data: ShardData, shots: Sequence[int], draws: int
) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray]]:
    """The test images, and whether few-shot linear probes get each right, by (shots, draw); the shots come from the
    training subset.
    """
    module.eval()
    splits: tuple[Split, Split] = ("train", "test")
    (train_x, train_y), (test_x, test_y) = (read_features(module.network, data, s, module.device) for s in splits)
    found = fewshot_answers(
        train_x, train_y, test_x, test_y, shots=shots, seeds=range(draws), classes=module.config.classes
    )
    return data.samples("test"), {draw: right.numpy() for draw, right in found.items()}


def write_predictions(batches: Any, data: ShardData, names: Sequence[str], path: Path) -> Path:
    """One CSV line per test image: its number, its key, its label, the class predicted, the probability of each class.

    Classes are the network's: `names` are theirs.
    """
    rows = gathered(list(batches or []))
    samples, labels, probabilities = (torch.cat([row[name] for row in rows]) for name in _COLUMNS)
    order = samples.argsort()
    keys = keys_of(data.index_of("test"), samples[order].numpy())
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["sample", "key", "label", "predicted", *(f"p_{name}" for name in names)])
    for key, i in zip(keys, order.tolist(), strict=True):
        chances = [f"{p:.6f}" for p in probabilities[i].tolist()]
        writer.writerow([int(samples[i]), key, int(labels[i]), int(probabilities[i].argmax()), *chances])
    write_atomically(path, text.getvalue())
    return path
