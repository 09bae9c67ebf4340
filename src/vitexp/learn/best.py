"""Early stopping as the paper means it: training goes on, and the weights that validated best are kept."""

from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vitexp.learn.classify import Classify

CHOSEN_BY = "val_acc"


class Best(L.Callback):
    """Holds the weights that were measured best on the validation slice, the first of equals.

    They travel in the checkpoint, so a run that is resumed chooses among the same.
    """

    def __init__(self) -> None:
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights if they are better than any before."""
        assert isinstance(pl_module, Classify)
        found = pl_module.measurements
        if trainer.state.fn != TrainerFn.FITTING or CHOSEN_BY not in found:
            return
        if not self.metrics or found[CHOSEN_BY] > self.metrics[CHOSEN_BY]:
            self.step, self.metrics = trainer.global_step, {k: v for k, v in found.items() if k.startswith("val_")}
            self.weights = {k: v.detach().cpu().clone() for k, v in pl_module.measured.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"step": self.step, "metrics": self.metrics, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best so far."""
        self.step, self.metrics, self.weights = (state_dict[name] for name in ("step", "metrics", "weights"))
