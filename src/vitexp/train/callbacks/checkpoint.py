"""Checkpoints that are whole or not there, and of a moment that a run can go on from."""

import fcntl
import io
import itertools
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed

from vitexp.lightning_private import accumulates, leave_sigterm_to, validates_after_this_batch
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


class BetweenSteps(Checkpoint):
    """Acts where a run can go on from: after a whole optimiser step, and after the validation that follows it.

    Lightning keeps checkpoints before that validation; a run that is killed in it would go on with the next batch, and
    its record would lack these numbers. Between batches whose gradients are added up there is no such place.
    """

    def act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is done there."""
        raise NotImplementedError

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Acts, but for the last batch of an epoch and where a validation comes first."""
        if not (_is_last(trainer) or validates_after_this_batch(trainer) or accumulates(trainer)):
            self.act(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Acts after a validation in the middle of an epoch."""
        if trainer.state.fn == TrainerFn.FITTING and not (_is_last(trainer) or accumulates(trainer)):
            self.act(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Acts after the last batch."""
        if _is_last(trainer):
            self.act(trainer, pl_module)


class RunCheckpoint(BetweenSteps, ModelCheckpoint):
    """Keeps the checkpoint that is due, by steps or by time, at the next such place."""

    cut_off: int | None = None
    """The step after which training was asked to stop in the middle of an epoch; the checkpoint is of that moment."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Keeps one at once where training is asked to stop and no validation comes first."""
        if trainer.should_stop and not (_is_last(trainer) or accumulates(trainer)):
            if not _validation_is_due(trainer):
                self._cut_off(trainer)
        else:
            super().on_train_batch_end(trainer, pl_module, *batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what was due at a batch in the middle of an epoch."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not (_is_last(trainer) or trainer.sanity_checking)
        if fitting and trainer.should_stop and self.cut_off != trainer.global_step:
            self._cut_off(trainer)
        super().on_validation_end(trainer, pl_module)

    def _cut_off(self, trainer: Trainer) -> None:
        """Keeps the moment in mid-epoch: Lightning will count the rest of the epoch as taken."""
        self.cut_off = trainer.global_step
        trainer.save_checkpoint(Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}")

    def act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps it if it is due."""
        ModelCheckpoint.on_train_batch_end(self, trainer, pl_module, None, None, 0)


def set_aside(checkpoint: Path) -> Path:
    """Gives the checkpoint of an unfinished run another name, so that a run that starts anew does not overwrite it."""
    numbers = itertools.count(1)
    free = (path for n in numbers if not (path := checkpoint.with_name(f"earlier-{n}{checkpoint.suffix}")).exists())
    return checkpoint.rename(next(free))


@contextmanager
def alone_in(directory: Path, checkpoint: Path | None, first_rank: bool) -> Iterator[None]:
    """Holds a run's folder, which can be written to, for the time of a run; the first of its ranks does so.

    Raises: ValueError when another run holds it; OSError when it cannot be written to.
    """
    if not first_rank:
        yield
        return
    for folder in (directory, checkpoint.parent) if checkpoint else (directory,):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # better now than after the last step
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another run is at work in {directory}; wait for it, or give another --run.dir") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


def _is_last(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _validation_is_due(trainer: Trainer) -> bool:
    """The same without the validation that Lightning adds where it is asked to stop."""
    trainer.should_stop = False
    due = validates_after_this_batch(trainer)
    trainer.should_stop = True
    return due


# Ctrl-C and SIGTERM: a run ends after a whole step, with a checkpoint of it, and all its ranks at the same step.

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2


class Interrupted(BaseException):
    """A signal ends the run; like KeyboardInterrupt nothing that a callback may catch by accident."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stop(BetweenSteps):
    """Takes note of a signal while the network trains, and ends the run where it can go on from later.

    A second Ctrl-C, and any signal outside training, ends it at once. Lightning itself would raise KeyboardInterrupt in
    the middle of whatever is being done; on SIGTERM it broadcasts inside the handler, which meets whatever exchange the
    other ranks are in and may wait for ever. Here the handler only takes note, and the exchange that Lightning has
    before each batch carries it to all ranks.
    """

    def __init__(self, trainer: Any, checkpoint: Path | None) -> None:
        self.trainer, self.checkpoint = trainer, checkpoint
        self.kept_step = -1
        """The step whose checkpoint was kept at the end."""
        self.noted = self.agreed = 0
        self.training = self.ending = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        leave_sigterm_to(trainer, self._agree)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the step to end."""
        self.training = True

    def act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises: Interrupted on all ranks, when one of them was sent a signal."""
        due = self.noted if trainer.world_size == 1 else self.agreed
        if not due:
            return
        self.ending = True
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
            self.kept_step = trainer.global_step
        raise Interrupted(due)

    def trained(self) -> None:
        """Training is over. Raises: Interrupted for a signal that came too late to be seen in it."""
        self.training = False
        if self.trainer.world_size > 1:
            self._agree()
        if due := self.noted or self.agreed:
            self.ending = True
            raise Interrupted(due)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that prepares batches; the run itself ends it
            if signum == signal.SIGTERM:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            return
        launcher = self.trainer.strategy.launcher
        if launcher is not None and signum == signal.SIGTERM and not self.noted:
            launcher.kill(signum)  # the ranks that this one has started; Ctrl-C reaches them by itself
        if self.ending or (self.noted and signum == signal.SIGTERM):
            return
        if self.training and not self.noted:
            self.noted = signum
            if self.trainer.is_global_zero:
                again = "; Ctrl-C again ends at once" if signum == signal.SIGINT else ""
                os.write(_STDERR, f"vitexp: ending after this step{again}\n".encode())
            return
        self.ending = True
        raise Interrupted(signum)

    def _agree(self) -> None:
        noted = torch.tensor([self.noted], device=self.trainer.strategy.root_device)
        distributed.all_reduce(noted, op=distributed.ReduceOp.MAX)
        self.agreed = int(noted.item())
