"""The final numbers of a run, all of the same weights: validation, test, and few-shot probes on frozen features."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import lightning as L
import numpy as np
from scipy import special

from vitexp.data.module import ShardData, Split
from vitexp.eval.fewshot import drawn_answers
from vitexp.train.answers import read_shots
from vitexp.train.config import RunConfig
from vitexp.train.evaluators import Evaluators
from vitexp.train.losses import log_row
from vitexp.train.module import Classifier

T = TypeVar("T")
Answers = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name: the images int64 (n,), and whether each was classified right, bool (n,)."""


class FewShotProbe(L.Callback):
    """Measures `fewshot_N`: the mean test accuracy of linear probes on N training images of each class.

    With a `RunRecorder` beside it, the numbers stand in the record, and so does each test image's answer; without one
    they go to the loggers and to `metrics`. The data must be a `ShardData` with test images.

    Args:
        shots: Images of each class; one number for each.
        draws: Random draws of these images; a number is the mean over them.
        fewer: A class with fewer training images than shots gives all it has, as in Google's protocol; `metrics` then
            has `fewshot_N_images`, how many a draw takes in all. Otherwise it is an error.

    Source: ViT paper, section 4.1; the ridge regression is that of `vitexp.eval.fewshot`.
    """

    def __init__(self, shots: Sequence[int] = (5,), draws: int = 3, fewer: bool = False) -> None:
        self.shots, self.draws, self.fewer = tuple(shots), draws, fewer
        self.metrics: dict[str, float] = {}

    def measure(self, trainer: Any, module: Classifier, data: ShardData) -> dict[str, Answers]:
        """Fills `metrics`; returns for each of them the answers by `fewshot_N/draw-K`. Called on all ranks.

        The shots come from the training subset.
        """
        module.to(trainer.strategy.root_device).eval()  # the trainer leaves it on the CPU
        asked: dict[str, Any] = {"shots": self.shots, "seeds": range(self.draws), "fewer": self.fewer}
        drawn, parts = read_shots(module.network, data, module.device, **asked)
        found = drawn_answers(drawn, *parts, classes=data.classes)
        samples, answers = data.samples("test"), {}
        for count in self.shots:
            rights = [found[count, draw].numpy() for draw in range(self.draws)]
            self.metrics[f"fewshot_{count}"] = sum(int(right.sum()) / len(samples) for right in rights) / self.draws
            if (images := len(drawn[count, 0])) < count * data.classes:
                self.metrics[f"fewshot_{count}_images"] = float(images)
            named = {f"fewshot_{count}/draw-{draw}": (samples, right) for draw, right in enumerate(rights)}
            answers[f"fewshot_{count}"] = named
        return answers

    def on_fit_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        """Measures, unless a recorder has done so. Raises: ValueError for another module or data module."""
        if not (self.metrics or trainer.fast_dev_run):
            self.measure(trainer, *own_parts(trainer, pl_module))
            log_row(trainer, dict(self.metrics), trainer.global_step)


def own_parts(trainer: Any, module: Any) -> tuple[Classifier, ShardData]:
    """The module and the data of a run. Raises: ValueError where they are of other kinds."""
    data = trainer.datamodule
    if not (isinstance(module, Classifier) and isinstance(data, ShardData)):
        raise ValueError(
            f"RunRecorder and FewShotProbe need a Classifier that trains on a ShardData, and here "
            f"{type(module).__name__} trains on {type(data).__name__}; give the data as trainer.fit(module, "
            "datamodule=data)"
        )
    return module, data


def callback_of(trainer: Any, kind: type[T]) -> T | None:
    """The trainer's first callback of a kind."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)


def final_numbers(
    run: RunConfig, trainer: Any, module: Classifier, data: ShardData
) -> Iterator[tuple[Split, dict[str, float], Answers]]:
    """What the run asks for, as soon as each is known: the split, its numbers, and the answers to its images.

    Runs on all ranks. Raises: RuntimeError when a callback exchanges the weights for the measurement.
    """
    weights = module.weight_sums()
    if data.val_count and trainer.limit_val_batches != 0:
        # the last validation counts if it was of these very weights: what averages or restores weights comes after it
        same = module.measured_weights.get("val") == weights
        if not trainer.strategy.reduce_boolean_decision(same, all=True):
            _run("validate", "val", trainer, module, data, weights)
        yield "val", *_found(module, "val")
    if run.test and data.test_count and trainer.limit_test_batches != 0:
        _run("test", "test", trainer, module, data, weights)
        yield "test", *_found(module, "test")
    own = callback_of(trainer, Evaluators)
    if own is not None and data.test_count:
        yield "test", own.measure(trainer, module, data), {}
    probe = callback_of(trainer, FewShotProbe)
    if probe is not None and probe.shots and data.test_count:
        for name, answers in probe.measure(trainer, module, data).items():
            yield "test", {key: probe.metrics[key] for key in (name, f"{name}_images") if key in probe.metrics}, answers


def _run(verb: str, split: str, trainer: Any, module: Classifier, data: ShardData, weights: list[int]) -> None:
    getattr(trainer, verb)(module, datamodule=data, verbose=False, weights_only=True)
    if module.measured_weights.get(split, weights) != weights:
        raise RuntimeError(
            f"{verb} measured other weights than the ones that are kept: a callback exchanges them; leave it out"
        )


def _found(module: Classifier, split: str) -> tuple[dict[str, float], Answers]:
    found = {name: value for name, value in module.measurements.items() if f"{split}_" in name}
    measured = module.measured_images.get(split)
    if measured is None or measured.right is None:
        return found, {}
    name = next(name for name in found if name.endswith(f"{split}_acc"))
    return found, {name: (measured.samples, measured.right)}


def chance(module: Classifier, data: ShardData) -> dict[str, float]:
    """What guessing reaches: `chance_acc`, always the largest class of the test images, or else of those of val;
    `chance_loss`, the training loss of always giving the shares of the classes among the training images.
    """
    split = next((split for split in ("test", "val") if data.count(split)), None)
    if split is None or module.masked is not None:
        return {}
    labels, config = data.labels(split), module.config
    found = {"chance_acc": int(np.bincount(labels).max()) / len(labels)}
    shares = data.class_counts("train") / data.train_count
    if config.loss == "softmax":
        found["chance_loss"] = _entropy(shares * (1 - config.label_smoothing) + config.label_smoothing / len(shares))
    elif config.loss == "sigmoid":
        shares = shares * (1 - 2 * config.label_smoothing) + config.label_smoothing
        found["chance_loss"] = _entropy(shares) + _entropy(1 - shares)
    return found


def _entropy(shares: np.ndarray) -> float:
    """In nats."""
    return float(special.entr(shares).sum())
