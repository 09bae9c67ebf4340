"""Checkpoints that are whole or not there, and of a moment that a run can go on from."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from vitexp.record import write_atomically


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the target and renames.

    Lightning's own writer goes by way of the system's temporary folder; on another file system its last move is a copy,
    and a disk that fills up in the middle leaves half a checkpoint in place of the good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Writes a local checkpoint atomically; a URL is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(path, buffer.getbuffer())


class Keeper(ModelCheckpoint):
    """Keeps the checkpoint that is due at a batch which a validation follows only when that has been done.

    Lightning keeps it before; a run that is killed in that validation would go on with the next batch, and its record
    would lack these numbers.
    """

    cut_off: int | None = None
    """The step behind which training was told to stop in the middle of an epoch; the checkpoint is of that moment."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Keeps what is due, but for the last batch of an epoch and where a validation comes first."""
        if trainer.should_stop and not _is_last(trainer):
            if not _validation_is_due(trainer):
                self._cut_off(trainer)
        elif not (_is_last(trainer) or _validates_now(trainer)):
            super().on_train_batch_end(trainer, pl_module, *batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what was due at a batch in the middle of an epoch."""
        if trainer.state.fn != TrainerFn.FITTING or _is_last(trainer):
            return
        if trainer.should_stop and not trainer.sanity_checking and self.cut_off != trainer.global_step:
            self._cut_off(trainer)
        super().on_train_batch_end(trainer, pl_module, None, None, 0)

    def _cut_off(self, trainer: Trainer) -> None:
        """Keeps the moment in mid-epoch: Lightning will count the rest of the epoch as taken."""
        self.cut_off = trainer.global_step
        trainer.save_checkpoint(Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what was due at the last batch."""
        if _is_last(trainer):
            super().on_train_batch_end(trainer, pl_module, None, None, 0)


def _is_last(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _validates_now(trainer: Trainer) -> bool:
    """Lightning's own answer, a moment before it asks itself."""
    loop: Any = trainer.fit_loop
    return bool(trainer.enable_validation and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def _validation_is_due(trainer: Trainer) -> bool:
    """The same without the validation that Lightning adds where it is told to stop."""
    trainer.should_stop = False
    due = _validates_now(trainer)
    trainer.should_stop = True
    return due
