"""SIGTERM to the ranks of a run: all of them end, and at the same step."""

from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed


def end_together(trainer: Any) -> None:
    """Makes the ranks of a trainer agree before each batch whether one of them has been told to end.

    Lightning broadcasts inside its signal handler, which meets whatever exchange the other ranks are in and may wait
    for ever; and a rank that has the news early leaves the others alone in theirs. Here the handler only takes note,
    and the exchange that Lightning has before each batch carries it. A run of one rank is left as it is.
    """
    if trainer.world_size > 1:
        noted = _Noted(trainer)
        trainer._signal_connector._sigterm_notifier_fn = noted.note
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = noted.agree


class _Noted:
    """What this rank has been told."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.told = False

    def note(self, signum: int, _: Any) -> None:
        """The handler: passes the signal on to the ranks that this one has started, once."""
        launcher = self.trainer.strategy.launcher
        if launcher is not None and not self.told:
            launcher.kill(signum)
        self.told = True

    def agree(self) -> None:
        """Raises: SIGTERMException on all ranks, when one of them has been told to end."""
        told = torch.tensor([int(self.told)], device=self.trainer.strategy.root_device)
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
        if told.item():
            self.trainer._signal_connector.received_sigterm = True
            raise SIGTERMException
