"""The final numbers of a run: all of the same weights, each kept in the record as soon as it is known."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from vitexp.answers import write_answers
from vitexp.data.module import ShardData, Split
from vitexp.data.read.remote import keys_of
from vitexp.eval.fewshot import fewshot_answers
from vitexp.record import write_atomically
from vitexp.train.answers import gathered, largest_class, read_features
from vitexp.train.callbacks.best import Best
from vitexp.train.callbacks.record import Recorder
from vitexp.train.config import RunConfig
from vitexp.train.course import log_row
from vitexp.train.module import LIMITED, Classify

# Probes and predictions of a trained network over whole splits, each image once, on any number of ranks.

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


ACCURACIES = {"acc": "accuracy", "colour_acc": "colours right"}
SPLITS = ("val", "test")


class Run(Protocol):
    """What is measured, and how."""

    run: RunConfig
    trainer: Any
    model: Classify
    datamodule: ShardData


class FinalNumbers:
    """Measures a trained network, split by split."""

    def __init__(self, run: Run, recorder: Recorder, best: Best | None) -> None:
        self.run, self.recorder = run, recorder
        self.model, self.data, self.trainer = run.model, run.datamodule, run.trainer
        self.metrics: dict[str, float] = {} if best is None else {"best_step": float(best.step)}
        self.answers: dict[str, dict[str, Any]] = {}
        self.weights = self.model.weight_sums()

    def measure(self) -> None:
        """Validation, test and few-shot probes; those that the run asks for."""
        if self.data.count("val") and self.trainer.limit_val_batches != 0:
            if not self._validated():
                self._run("validate")
            self._keep_split("val")
        if self.run.run.test and self.data.count("test") and self.trainer.limit_test_batches != 0:
            self._run("test")
            self._keep_split("test")
        if self.run.run.shots and self.data.count("test"):
            self._probe()
        row = {"data_size": float(self.data.train_count)} | self.metrics
        log_row(self.trainer, row, self.trainer.global_step)

    def _validated(self) -> bool:
        """Whether the last validation was of these very weights: what averages or restores weights comes after it."""
        same = self.model.measured_weights.get("val") == self.weights
        return bool(self.trainer.strategy.reduce_boolean_decision(same, all=True))

    def _run(self, verb: str) -> None:
        """Raises: RuntimeError when a callback exchanges the weights for the measurement."""
        getattr(self.trainer, verb)(self.model, datamodule=self.data, verbose=False, weights_only=True)
        seen = self.model.measured_weights.get("val" if verb == "validate" else "test", self.weights)
        if seen != self.weights:
            raise RuntimeError(
                f"{verb} measured other weights than the ones that are kept: a callback exchanges them; leave it out"
            )

    def _keep_split(self, split: str) -> None:
        found = {name: value for name, value in self.model.measurements.items() if f"{split}_" in name}
        measured = self.model.measured_images.get(split)
        right = {}
        if measured is not None and measured.right is not None:
            name = next(name for name in found if name.endswith(f"{split}_acc"))
            right = {name: (measured.samples, measured.right)}
        self._keep(found, right, split)

    def _probe(self) -> None:
        self.model.to(self.trainer.strategy.root_device)  # the trainer leaves it on the CPU
        shots, draws = self.run.run.shots, self.run.run.shot_seeds
        samples, found = fewshot_answers_of(self.model, self.data, shots, draws)
        for count in shots:
            names = [f"fewshot_{count}/draw-{draw}" for draw in range(draws)]
            mean = sum(int(found[count, draw].sum()) / len(samples) for draw in range(draws)) / draws
            right = {name: (samples, found[count, draw]) for draw, name in enumerate(names)}
            self._keep({f"fewshot_{count}": mean}, right, "test")

    def _keep(self, found: dict[str, float], right: dict[str, tuple[np.ndarray, np.ndarray]], split: str) -> None:
        """Into the record on disk, so that whatever happens next loses nothing."""
        self.metrics |= found
        if not self.trainer.is_global_zero:
            return
        for name, (samples, bits) in right.items():
            order = self.data.order_fingerprint(split, samples)
            self.answers |= write_answers(self.recorder.directory, name, bits.tolist(), order)
        self.recorder.keep(metrics=dict(self.metrics), answers=dict(self.answers))


def chance(model: Classify, data: ShardData) -> dict[str, float]:
    """`chance_acc`: what always answering the largest class reaches on the test images, or else on those of val."""
    split = next((split for split in ("test", "val") if data.count(split)), None)
    if split is None or model.masked is not None:
        return {}
    return {"chance_acc": largest_class(data.index_of(split).labels[data.samples(split)])}


def results(metrics: Mapping[str, float], counts: Mapping[str, int | None]) -> list[str]:
    """A line for each number, with the images that it was measured on; `counts` are those of the splits."""
    names = [(split, prefix) for split in SPLITS for prefix in ("", LIMITED) if f"{prefix}{split}_loss" in metrics]
    lines = [_line(metrics, split, prefix, counts.get(split)) for split, prefix in names]
    for name, value in sorted(metrics.items()):
        if name.startswith("fewshot_"):
            lines.append(f"{name.removeprefix('fewshot_') + '-shot':<11} accuracy {100 * value:.2f} %   (linear probe)")
    return lines


def _line(metrics: Mapping[str, float], split: str, prefix: str, count: int | None) -> str:
    found = {words: metrics.get(f"{prefix}{split}_{name}") for name, words in ACCURACIES.items()}
    shares = "".join(f"{words} {100 * value:.2f} %   " for words, value in found.items() if value is not None)
    loss = f"loss {metrics[f'{prefix}{split}_loss']:.4f}"
    measured = f"only {metrics[f'{prefix}{split}_images']:.0f} of " if prefix else ""
    return f"{split:<11} {shares}{loss}" + (f"   ({measured}{count} images)" if count is not None else "")
