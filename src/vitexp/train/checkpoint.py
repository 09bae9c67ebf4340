"""What is kept of a run while it trains: whole checkpoints of moments to go on from, and the best weights.

Also how a signal ends a run: after a whole step, with a checkpoint of it, and all ranks at the same step.
"""

import fcntl
import io
import itertools
import os
import signal
import tempfile
import threading
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, distributed

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
    """Acts where a run can go on from: after a whole optimizer step, and after the validation that follows it.

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
            trainer.should_stop = False  # else Lightning counts the validation that it adds where it is asked to stop
            due = validates_after_this_batch(trainer)
            trainer.should_stop = True
            if not due:
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

    @cached_property
    def state_key(self) -> str:
        """Its name in checkpoints, which Lightning asks for at every hook."""
        return super().state_key

    def act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps it if it is due."""
        ModelCheckpoint.on_train_batch_end(self, trainer, pl_module, None, None, 0)


def _is_last(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class BestWeights(L.Callback):
    """Holds the weights that were measured best on the validation slice, the first of equals.

    This is early stopping as the paper means it: training goes on. The weights travel in the checkpoint, so a run that
    is resumed chooses among the same.
    """

    def __init__(self) -> None:
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Keeps the weights if they are better than any before."""
        found = pl_module.measurements
        if trainer.state.fn != TrainerFn.FITTING or "val_acc" not in found:
            return
        if not self.metrics or found["val_acc"] > self.metrics["val_acc"]:
            self.step, self.metrics = trainer.global_step, {k: v for k, v in found.items() if k.startswith("val_")}
            self.weights = {k: v.detach().cpu().clone() for k, v in pl_module.measured.state_dict().items()}

    def chosen(self) -> dict[str, Tensor]:
        """The weights to keep. Raises: ValueError when no validation of all images came before the end."""
        if not self.weights:
            raise ValueError(
                "run.keep best found no val_acc: no validation measured all of its images before training ended; "
                "validate more often (trainer.val_check_interval), or keep the last weights"
            )
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"step": self.step, "metrics": self.metrics, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best so far."""
        self.step, self.metrics, self.weights = (state_dict[name] for name in ("step", "metrics", "weights"))


def set_aside(checkpoint: Path) -> Path:
    """Gives the checkpoint of an unfinished run another name, so that a run that starts anew does not overwrite it."""
    numbers = itertools.count(1)
    free = (path for n in numbers if not (path := checkpoint.with_name(f"earlier-{n}{checkpoint.suffix}")).exists())
    return checkpoint.rename(next(free))


def take_folder(directory: Path, checkpoint: Path | None) -> int:
    """Holds a run's folder, which can be written to, until the file descriptor that it gives is closed.

    Raises: ValueError when another run holds it; OSError when it cannot be written to.
    """
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
    return handle


class Interrupted(BaseException):
    """A signal ends the run; like KeyboardInterrupt nothing that a callback may catch by accident."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stop(BetweenSteps):
    """Takes note of Ctrl-C or SIGTERM while the network trains, and ends the run where it can go on from later.

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
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the step to end."""
        self.training = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Nothing, without a signal."""
        if self.noted or self.agreed:
            super().on_train_batch_end(trainer, pl_module, *batch)

    def act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises: Interrupted on all ranks, when one of them was sent a signal."""
        if due := self.noted if trainer.world_size == 1 else self.agreed:
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
                os.write(2, f"vitexp: ending after this step{again}\n".encode())  # print is not safe in a handler
            return
        self.ending = True
        raise Interrupted(signum)

    def _agree(self) -> None:
        noted = torch.tensor([self.noted], device=self.trainer.strategy.root_device)
        distributed.all_reduce(noted, op=distributed.ReduceOp.MAX)
        self.agreed = int(noted.item())
