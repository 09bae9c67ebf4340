"""Watches a run: which batches it took, which weights it came to; and cuts it off where it is told to."""

import hashlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from vitexp.data.batch import Batch
from vitexp.learn.best import Best

WEIGHTS = "weights"


class Witness(L.Callback):
    """Notes each batch in a file, a line each, and ends the process when the last step is taken.

    Args:
        file: Where the lines go; the rank's number is put behind its name.
        stop: Optimiser steps after which the process ends, without any of what a run does at its end.
        kill: The step in which the process kills itself, after its backward pass; none by default.
        kill_in_validation: Whether it kills itself in the validation that follows that step instead.
    """

    def __init__(self, file: str, stop: int, kill: int = 0, kill_in_validation: bool = False) -> None:
        self.file, self.stop = file, stop
        self.kill, self.kill_in_validation = kill, kill_in_validation

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        """Cuts a step off between its gradients and its update."""
        if not self.kill_in_validation and trainer.global_step + 1 == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Cuts a validation off."""
        if self.kill_in_validation and trainer.global_step == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Notes the batch; behind the last one also the weights."""
        pixels = digest([batch.images, batch.labels])
        line = {"epoch": trainer.current_epoch, "batch": batch_idx, "samples": batch.samples.tolist(), "pixels": pixels}
        self._note(trainer, line)
        if trainer.global_step >= self.stop:
            self._note(trainer, {WEIGHTS: digest(_state(pl_module, trainer)), "sums": _sums(pl_module)})
            try:
                trainer.strategy.barrier()
            finally:  # all ranks have noted what they had to; one that is gone already may end the barrier of others
                os._exit(0)

    def _note(self, trainer: L.Trainer, line: dict[str, Any]) -> None:
        with Path(f"{self.file}.{trainer.global_rank}").open("a") as file:
            file.write(json.dumps(line) + "\n")


def digest(tensors: Iterable[Tensor]) -> str:
    """The bits of tensors, in their order, as 16 hexadecimal digits."""
    bits = hashlib.sha256()
    for tensor in tensors:
        bits.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return bits.hexdigest()[:16]


def _state(module: L.LightningModule, trainer: L.Trainer) -> Iterable[Tensor]:
    """What the next step and the end depend on: weights, buffers, what the optimiser remembers, the best so far."""
    yield from (value for _, value in sorted(module.state_dict().items()))
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            yield from (value for _, value in sorted(state.items()) if isinstance(value, Tensor))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Best):
            yield from (value for _, value in sorted(callback.weights.items()))


def _sums(module: L.LightningModule) -> list[float]:
    """One number for each parameter, to tell how far apart two runs are."""
    return [parameter.detach().double().norm().item() for parameter in module.parameters()]
