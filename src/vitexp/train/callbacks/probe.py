"""Few-shot linear probes on a network's frozen features, when its training has ended."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np

from vitexp.data.module import ShardData, Split
from vitexp.eval.fewshot import fewshot_answers
from vitexp.train.answers import read_features
from vitexp.train.course import log_row
from vitexp.train.module import Classifier

Answers = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name: the test images int64 (n,), and whether each was classified right, bool (n,)."""


class FewShotProbe(L.Callback):
    """Measures `fewshot_N`: the mean test accuracy of linear probes on N training images of each class.

    With a `RunRecorder` beside it, the numbers stand in the record, and so does each test image's answer; without one
    they go to the loggers and to `metrics`. The data must be a `ShardData` with test images.

    Args:
        shots: Images of each class; one number for each.
        draws: Random draws of these images; a number is the mean over them.

    Source: ViT paper, section 4.1; the ridge regression is that of `vitexp.eval.fewshot`.
    """

    def __init__(self, shots: Sequence[int] = (5,), draws: int = 3) -> None:
        self.shots, self.draws = tuple(shots), draws
        self.metrics: dict[str, float] = {}

    def measure(self, trainer: Any, module: Classifier, data: ShardData) -> Answers:
        """Fills `metrics`; returns the answers by `fewshot_N/draw-K`. Called on all ranks."""
        module.to(trainer.strategy.root_device)  # the trainer leaves it on the CPU
        samples, found = fewshot_answers_of(module, data, self.shots, self.draws)
        answers: Answers = {}
        for count in self.shots:
            rights = [found[count, draw] for draw in range(self.draws)]
            mean = sum(int(right.sum()) / len(samples) for right in rights) / self.draws
            self.metrics[f"fewshot_{count}"] = mean
            answers |= {f"fewshot_{count}/draw-{draw}": (samples, right) for draw, right in enumerate(rights)}
        return answers

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures, unless a recorder does so in the course of its own end.

        Raises: TypeError for another module or data module.
        """
        if self.metrics or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (isinstance(pl_module, Classifier) and isinstance(data, ShardData)):
            raise TypeError(f"FewShotProbe measures a Classifier on a ShardData, not {type(pl_module)} on {type(data)}")
        self.measure(trainer, pl_module, data)
        log_row(trainer, dict(self.metrics), trainer.global_step)


def fewshot_answers_of(
    module: Classifier, data: ShardData, shots: Sequence[int], draws: int
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
