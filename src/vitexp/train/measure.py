"""The final numbers of a run: all of the same weights, each kept in the record as soon as it is known."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vitexp.data.module import ShardData
from vitexp.data.shards.files import keys_of
from vitexp.record import write_answers, write_atomically
from vitexp.train.answers import gathered, largest_class
from vitexp.train.callbacks.best import BestWeights
from vitexp.train.callbacks.probe import FewShotProbe
from vitexp.train.config import RunConfig
from vitexp.train.course import log_row
from vitexp.train.module import LIMITED, Classifier

T = TypeVar("T")
_COLUMNS = ("samples", "labels", "probabilities")


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


class FinalNumbers:
    """Measures a trained network, split by split.

    Args:
        run: What the config asks to be measured.
        keep: Takes the numbers so far, and the images answered rightly, into the record on disk.
    """

    def __init__(
        self,
        run: RunConfig,
        trainer: Any,
        module: Classifier,
        data: ShardData,
        directory: Path,
        keep: Callable[[dict[str, float], dict[str, Any]], None],
    ) -> None:
        self.run, self.trainer, self.module, self.data = run, trainer, module, data
        self.directory, self.keep = directory, keep
        best = callback_of(trainer, BestWeights)
        self.metrics: dict[str, float] = {} if best is None else {"best_step": float(best.step)}
        self.answers: dict[str, dict[str, Any]] = {}
        self.weights = module.weight_sums()

    def measure(self) -> None:
        """Validation, test and few-shot probes; those that the run asks for."""
        if self.data.count("val") and self.trainer.limit_val_batches != 0:
            if not self._validated():
                self._run("validate")
            self._keep_split("val")
        if self.run.test and self.data.count("test") and self.trainer.limit_test_batches != 0:
            self._run("test")
            self._keep_split("test")
        probe = callback_of(self.trainer, FewShotProbe)
        if probe is not None and probe.shots and self.data.count("test"):
            answers = probe.measure(self.trainer, self.module, self.data)
            for name, value in probe.metrics.items():
                these = {draw: answer for draw, answer in answers.items() if draw.startswith(f"{name}/")}
                self._keep({name: value}, these, "test")
        row = {"data_size": float(self.data.train_count)} | self.metrics
        log_row(self.trainer, row, self.trainer.global_step)

    def _validated(self) -> bool:
        """Whether the last validation was of these very weights: what averages or restores weights comes after it."""
        same = self.module.measured_weights.get("val") == self.weights
        return bool(self.trainer.strategy.reduce_boolean_decision(same, all=True))

    def _run(self, verb: str) -> None:
        """Raises: RuntimeError when a callback exchanges the weights for the measurement."""
        getattr(self.trainer, verb)(self.module, datamodule=self.data, verbose=False, weights_only=True)
        seen = self.module.measured_weights.get("val" if verb == "validate" else "test", self.weights)
        if seen != self.weights:
            raise RuntimeError(
                f"{verb} measured other weights than the ones that are kept: a callback exchanges them; leave it out"
            )

    def _keep_split(self, split: str) -> None:
        found = {name: value for name, value in self.module.measurements.items() if f"{split}_" in name}
        measured = self.module.measured_images.get(split)
        right = {}
        if measured is not None and measured.right is not None:
            name = next(name for name in found if name.endswith(f"{split}_acc"))
            right = {name: (measured.samples, measured.right)}
        self._keep(found, right, split)

    def _keep(self, found: dict[str, float], right: dict[str, tuple[np.ndarray, np.ndarray]], split: str) -> None:
        """Into the record on disk, so that whatever happens next loses nothing."""
        self.metrics |= found
        if not self.trainer.is_global_zero:
            return
        for name, (samples, bits) in right.items():
            order = self.data.order_fingerprint(split, samples)
            self.answers |= write_answers(self.directory, name, bits.tolist(), order)
        self.keep(dict(self.metrics), dict(self.answers))


def callback_of(trainer: Any, kind: type[T]) -> T | None:
    """The trainer's first callback of a kind."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)


def chance(model: Classifier, data: ShardData) -> dict[str, float]:
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
