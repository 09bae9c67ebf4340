"""Ctrl-C and SIGTERM: a run ends after a whole step, with a checkpoint of it, and all its ranks at the same step."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import distributed

from vitexp.learn.checkpoint import BetweenSteps

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
        trainer._signal_connector._sigterm_notifier_fn = lambda *_: None
        if trainer.world_size > 1:
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = self._agree

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
