"""The loss of each image; and its means on the way, for loggers and records.

Row s of a logger is about the weights after s optimizer steps: `train_loss` is their mean loss over the images of the
next step, `lr` the rate of that step, and `val_acc` what they reach on the validation images. There is a row for every
s that `trainer.log_every_n_steps` divides, at any length of an epoch and across a resume.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitexp.data.batch import Batch
from vitexp.data.mixing import partners
from vitexp.train.config import ClassifyConfig
from vitexp.train.own_parts import own_losses


def image_losses(logits: Tensor, labels: Tensor, config: ClassifyConfig) -> Tensor:
    """One loss per image, in fp32. Shapes: (B, classes), (B) -> (B).

    Source: sigmoid cross-entropy summed over classes is the paper's pre-training loss (paper sheet 2.2).
    """
    logits = logits.float()
    smoothing = config.label_smoothing
    if config.loss == "softmax":
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    if config.loss != "sigmoid":
        return own_losses(logits, labels, config)
    targets = F.one_hot(labels, config.classes).to(logits.dtype) * (1.0 - 2 * smoothing) + smoothing
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)


def batch_losses(logits: Tensor, batch: Batch, config: ClassifyConfig) -> Tensor:
    """One loss per image; that of a mixed image is shared between its label and its partner's. Shapes: -> (B,)."""
    losses = image_losses(logits, batch.labels, config)
    if batch.recipe is None:
        return losses
    others = image_losses(logits, partners(batch.labels), config)
    return batch.recipe.share * losses + (1 - batch.recipe.share) * others


def probabilities_of(logits: Tensor, config: ClassifyConfig) -> Tensor:
    """Class probabilities under the loss the network was trained with."""
    return logits.sigmoid() if config.loss == "sigmoid" else logits.softmax(-1)


_BLOCKS = 10
"""The first and the last of this many parts of the planned steps show whether a run trained."""


@dataclass
class _Sum:
    """Losses added up on this rank, and the number of images over all ranks."""

    total: Tensor | float = 0.0
    images: int = 0


class TrainingLoss:
    """Adds up the losses of the batches on the device, which nobody waits for; gives means over all ranks."""

    def __init__(self) -> None:
        self.epoch, self.block, self.row = _Sum(), _Sum(), _Sum()
        self.blocks: list[_Sum] = []
        self._clock: tuple[float, int] | None = None
        self._away = 0.0

    def add(self, losses: Tensor, images: int, logged: bool) -> None:
        """Takes the losses of this rank's part of a batch of `images` images."""
        part = losses.detach().sum(dtype=_exact(losses.device))
        for into in (self.epoch, self.block, *([self.row] if logged else [])):
            into.total = into.total + part
            into.images += images

    def end_step(self, trainer: Any, planned: int, images_seen: int, logged: bool) -> None:
        """Writes the row of the step just taken, where one is due, and closes a tenth of the planned steps."""
        if logged:
            rate = trainer.optimizers[0].param_groups[0]["lr"]  # still that of this step
            values = {"lr": rate, "train_loss": _means([self.row], trainer)[0]}
            self.row, now = _Sum(), time.perf_counter()
            if self._clock is not None and now > self._clock[0]:
                values["images_per_second"] = (images_seen - self._clock[1]) / (now - self._clock[0])
            self._clock = now, images_seen
            log_row(trainer, values, trainer.global_step)
        if (trainer.global_step + 1) % max(1, planned // _BLOCKS) == 0:
            self.blocks.append(self.block)
            self.block = _Sum()

    def pause(self) -> None:
        """The time of a validation is not counted as training, up to `go_on`."""
        self._away = time.perf_counter()

    def go_on(self) -> None:
        """Ends the pause."""
        if self._clock is not None:
            self._clock = self._clock[0] + time.perf_counter() - self._away, self._clock[1]

    def take_epoch(self, trainer: Any) -> float:
        """The mean over the images trained on since this was last asked; NaN for none."""
        epoch, self.epoch = self.epoch, _Sum()
        return _means([epoch], trainer)[0]

    def learning(self, trainer: Any) -> dict[str, float]:
        """The mean loss over the first and over the last tenth of the planned steps.

        Of a run that ended in its second tenth, the end is what it took of that; one that ended before has neither.
        """
        parts = [*self.blocks, self.block] if len(self.blocks) == 1 and self.block.images else self.blocks
        if len(parts) < 2:
            return {}
        start, end = _means([parts[0], parts[-1]], trainer)
        return {"train_loss_start": start, "train_loss_end": end}

    def state(self, trainer: Any) -> dict[str, Any]:
        """Plain numbers for a checkpoint: sums over all ranks."""
        parts = [self.epoch, self.block, *self.blocks]
        pairs = [[total, part.images] for total, part in zip(_summed(parts, trainer), parts, strict=True)]
        return {"epoch": pairs[0], "block": pairs[1], "blocks": pairs[2:]}

    def load(self, state: Mapping[str, Any], rank: int) -> None:
        """Takes the sums up again: they are over all ranks, so they belong to one of them."""
        self.epoch, self.block, *self.blocks = (
            _Sum(float(total) if rank == 0 else 0.0, int(images))
            for total, images in (state["epoch"], state["block"], *state["blocks"])
        )


def _means(parts: list[_Sum], trainer: Any) -> list[float]:
    """The mean of each over the images of all ranks; NaN for none."""
    sums = _summed(parts, trainer)
    return [total / part.images if part.images else float("nan") for total, part in zip(sums, parts, strict=True)]


def _summed(parts: list[_Sum], trainer: Any) -> list[float]:
    """The totals over all ranks, with one wait for the device."""
    device = trainer.strategy.root_device
    totals = torch.stack([torch.as_tensor(part.total, dtype=_exact(device), device=device) for part in parts])
    if trainer.world_size > 1:
        totals = trainer.strategy.reduce(totals, reduce_op="sum")
    return [float(one) for one in totals.tolist()]


def _exact(device: torch.device) -> torch.dtype:
    """What losses are added up in: Apple's GPUs know no fp64."""
    return torch.float32 if device.type == "mps" else torch.float64


def log_row(trainer: Any, values: Mapping[str, float], step: int) -> None:
    """Writes one row to every logger, at this step whatever Lightning's own count is."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=step)
            logger.save()
