"""A run from a config file, for a Trainer of your own: the same module, data and record as `vitexp fit` makes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before lightning)
import lightning as L

from vitexp.cli import groups
from vitexp.data.module import ShardData
from vitexp.train.command import KIND, TrainingCommand
from vitexp.train.module import Classifier
from vitexp.train.recorder import RunRecorder


@dataclass(frozen=True)
class ConfiguredRun:
    """The parts of a run, built by the parser of `vitexp fit` and seeded as it seeds them.

    >>> run = from_config("experiments/pos_ablation.yaml", {"model.pos_embed": "2d"})  # doctest: +SKIP
    >>> run.trainer().fit(run.module, datamodule=run.data)  # doctest: +SKIP
    >>> run.recorder.record.metrics["test_acc"]  # doctest: +SKIP
    """

    module: Classifier
    data: ShardData
    recorder: RunRecorder
    callbacks: list[L.Callback]
    """those that the config asks for: its own, progress bar, best weights, few-shot probe, checkpoints"""
    trainer_options: dict[str, Any]
    """the arguments of `lightning.Trainer`, without callbacks; without a logger where the config names none"""

    def trainer(self, callbacks: Iterable[L.Callback] = (), **options: Any) -> L.Trainer:
        """A Trainer with the config's options and callbacks, and with callbacks and options of yours.

        An option that changes the numbers makes another run: the recorder then refuses to write this one's record.
        """
        every = [self.recorder, *callbacks, *self.callbacks]
        return L.Trainer(**{"logger": False, **self.trainer_options, **options}, callbacks=every)


def from_config(
    config: str | Path, options: Mapping[str, Any] | None = None, *, module: type[Classifier] = Classifier
) -> ConfiguredRun:
    """Module, data and recorder of a run, seeded and ready to train.

    Args:
        config: A YAML of `vitexp fit`, such as experiments/pos_ablation.yaml.
        options: Options that replace the config's, by the names of the flags: `{"model.pos_embed": "2d"}`.
        module: A subclass of `Classifier` to train in its place. Its source counts in the run's fingerprint.

    Raises: ValueError as `vitexp fit` does, in one sentence.
    """
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (options or {}).items()}
    flags = [f"--{name}={text}" for name, text in texts.items()]
    token = KIND.set(module)
    try:
        command = TrainingCommand(["fit", "--config", str(config), *flags], groups(), until="built")
    finally:
        KIND.reset(token)
    parts = command.model, command.datamodule, command.recorder
    return ConfiguredRun(*parts, command.callbacks, command.trainer_options)
