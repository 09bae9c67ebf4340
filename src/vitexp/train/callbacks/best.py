"""Early stopping as the paper means it: training goes on, and the weights that validated best are kept."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vitexp.train.module import Classifier

CHOSEN_BY = "val_acc"


class BestWeights(L.Callback):
    """Holds the weights that were measured best on the validation slice, the first of equals.

    They travel in the checkpoint, so a run that is resumed chooses among the same.
    """

    def __init__(self) -> None:
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights if they are better than any before."""
        assert isinstance(pl_module, Classifier)
        found = pl_module.measurements
        if trainer.state.fn != TrainerFn.FITTING or CHOSEN_BY not in found:
            return
        if not self.metrics or found[CHOSEN_BY] > self.metrics[CHOSEN_BY]:
            self.step, self.metrics = trainer.global_step, {k: v for k, v in found.items() if k.startswith("val_")}
            self.weights = {k: v.detach().cpu().clone() for k, v in pl_module.measured.state_dict().items()}

    def chosen(self) -> dict[str, Tensor]:
        """The weights to keep. Raises: ValueError when no validation of all images came before the end."""
        if not self.weights:
            raise ValueError(
                f"run.keep best found no {CHOSEN_BY}: no validation measured all of its images before training ended; "
                "validate more often (trainer.val_check_interval), or keep the last weights"
            )
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"step": self.step, "metrics": self.metrics, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best so far."""
        self.step, self.metrics, self.weights = (state_dict[name] for name in ("step", "metrics", "weights"))


def check_averages(callbacks: Any, keep: str, polyak: float) -> None:
    """Raises: ValueError where two choose the weights: a checkpoint would hold others than were measured."""
    given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    found = [type(one).__name__ for one in given if isinstance(one, StochasticWeightAveraging | WeightAveraging)]
    if found and (keep == "best" or polyak):
        other = "run.keep best" if keep == "best" else f"model.polyak {polyak}"
        raise ValueError(f"{found[0]} and {other} both choose the weights that are kept; leave one of them out")


def validates_all(trainer: Any) -> bool:
    """Whether these options of a trainer leave no validation image out; a whole number is a count of batches."""
    limit = trainer["limit_val_batches"]
    whole = limit is None or (isinstance(limit, float) and limit == 1.0)
    return whole and not trainer["overfit_batches"]
