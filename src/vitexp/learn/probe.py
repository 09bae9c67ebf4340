"""Probes and predictions of a trained network over whole splits, each image once, on any number of ranks."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitexp.data.module import ShardData, Split
from vitexp.eval.fewshot import fewshot_answers
from vitexp.learn.classify import Classify
from vitexp.learn.features import gathered, read_features
from vitexp.record import write_atomically


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
