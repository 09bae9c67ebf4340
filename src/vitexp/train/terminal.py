"""What a run shows: its progress bar, nothing that Lightning says about itself, and no end where nobody reads on."""

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.warnings import PossibleUserWarning

_SECONDS = 0.2
"""Between two moves of the bar."""


class Bar(RichProgressBar):
    """Lightning's bar with the true numbers of epochs and batches, and with how far the whole run is.

    Lightning counts max_steps as batches, also where gradients are added up, and shows max_epochs -1 as it is; its
    time left is that of an epoch.
    """

    _moved, _batch = 0.0, 0
    _began = (0.0, 0)
    """When this call began to train, and at which step"""
    _since: tuple[float, int] | None = None
    """When the first batch of this epoch had been taken, and how many images had been seen by then"""
    _loss: Any = None
    _speed = "-"

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """The epoch, a short bar and the batches; the rest says `get_metrics`."""
        columns: list[Any] = super().configure_columns(trainer)[:3]
        columns[1].bar_width = 20
        return columns

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on time is counted."""
        super().on_train_start(trainer, pl_module)
        self._began = time.monotonic(), trainer.global_step

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Its images are counted from the first batch on, for which workers may have to start."""
        super().on_train_epoch_start(trainer, pl_module)
        self._since = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves on a few times a second, and where an epoch begins or ends: nobody sees more."""
        self._batch, now = batch_idx, time.monotonic()
        self._loss, module = (outputs or {}).get("loss", self._loss), cast(Any, pl_module)  # a step may be passed over
        start, seen = self._since = self._since or (now, module.images_seen)
        self._speed = f"{(module.images_seen - seen) / (now - start):,.0f}" if now > start else self._speed
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if now - self._moved >= _SECONDS or batch_idx == 0 or is_last:
            self._moved = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Moves to the last batch that was taken, also where trainer.max_steps or a callback ended the epoch."""
        super().on_train_batch_end(trainer, pl_module, None, None, self._batch)
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What is shown beside the bar: of the last batch, of this epoch, of the run, and what was validated."""
        module, now, (began, first) = cast(Any, pl_module), time.monotonic(), self._began
        done, total = trainer.global_step, module.total_steps()
        left = (now - began) * (total - done) / (done - first) if done > first else None
        shown = {
            "loss": self._loss.item() if self._loss is not None else "-",
            "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.2g}",
            "images/s": self._speed,
            "run": f"{done / total:.0%}",
            "left": "-" if left is None else str(timedelta(seconds=round(left))),
        }
        return shown | {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}

    @property
    def total_train_batches(self) -> int | float:
        """The batches of this epoch, of which the last one may be cut short."""
        steps, per_epoch = self._steps()
        left = (steps - self.trainer.current_epoch * per_epoch) * self.trainer.accumulate_grad_batches
        return max(0, min(self.trainer.num_training_batches, left))

    def _get_train_description(self, current_epoch: int) -> str:
        steps, per_epoch = self._steps()
        return f"{f'Epoch {current_epoch}/{-(-steps // per_epoch) - 1}':{len(self.validation_description)}}"

    def _steps(self) -> tuple[int, int]:
        """Optimizer steps of the run, and of an epoch."""
        module: Any = self.trainer.lightning_module
        return module.total_steps(), -int(-self.trainer.num_training_batches // self.trainer.accumulate_grad_batches)


_ADVICE = (
    ".*does not have many workers.*",
    ".*LightningCLI's args parameter is intended.*",
    ".*treespec, LeafSpec.*",
    ".*callbacks used to create the checkpoint.*",
    "The dirpath has changed from.*",
    ".*Checkpoint directory .* exists and is not empty.*",
)
_TALKERS = ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "pytorch.trainer.connectors.checkpoint_connector")


class NoProfiler(PassThroughProfiler):
    """Lightning's, which measures nothing, without building a context for each of some 40 calls a step."""

    def profile(self, action_name: str) -> Any:
        """A context that does nothing."""
        return _NOTHING


_NOTHING = contextlib.nullcontext()


def quieten() -> None:
    """Leaves out what Lightning says about itself: advice on workers, on its other products, on the seed."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    for message in _ADVICE:
        warnings.filterwarnings("ignore", message=message)
    for name in _TALKERS:
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)


class _Unbreakable:
    """A text stream that ends in nothing once nobody reads it any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what is still read."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Sends what is still read."""
        self._try(self._stream.flush)

    def _try(self, send: Callable[..., Any], *text: str) -> None:
        try:
            send(*text)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """For the time of a run, standard output that a reader may leave, as `| head` does: its record is written still."""
    if sys.stdout is None:
        yield
        return
    with contextlib.redirect_stdout(_Unbreakable(sys.stdout)):
        try:
            yield
        finally:
            sys.stdout.flush()
