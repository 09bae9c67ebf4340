"""The progress bar of a run."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar


class Bar(RichProgressBar):
    """Lightning's bar, without the logger's version number, and with the true numbers of epochs and batches.

    Lightning counts max_steps as batches, also where gradients are added up, and shows max_epochs -1 as it is.
    """

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What is shown beside the bar."""
        shown: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        shown.pop("v_num", None)
        return shown

    @property
    def total_train_batches(self) -> int | float:
        """The batches of this epoch, of which the last one may be cut short."""
        steps_before = self.trainer.current_epoch * self._steps_per_epoch
        left = (self._total_steps - steps_before) * self.trainer.accumulate_grad_batches
        return max(0, min(self.trainer.num_training_batches, left))

    def _get_train_description(self, current_epoch: int) -> str:
        last = -(-self._total_steps // self._steps_per_epoch) - 1
        return f"{f'Epoch {current_epoch}/{last}':{len(self.validation_description)}}"

    @property
    def _total_steps(self) -> int:
        steps: int = self.trainer.lightning_module.total_steps()  # type: ignore[operator]
        return steps

    @property
    def _steps_per_epoch(self) -> int:
        return -int(-self.trainer.num_training_batches // self.trainer.accumulate_grad_batches)
