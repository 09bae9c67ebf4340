"""The training loss on its way: of single steps for the loggers, of epochs and of the first and last tenth for records.

Row s of a logger is about the weights after s optimiser steps: `train_loss` is their mean loss over the images of the
next step, `lr` the rate of that step, and `val_acc` what they reach on the validation images. There is a row for every
s that `trainer.log_every_n_steps` divides, at any length of an epoch and across a resume.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCKS = 10
"""The first and the last of this many parts of the planned steps show whether a run trained."""


@dataclass
class Mean:
    """Losses added up on this rank, and the number of images over all ranks."""

    total: Tensor | float = 0.0
    images: int = 0

    def add(self, part: Tensor, images: int) -> None:
        """Adds the losses of a batch: on the device, which nobody waits for."""
        self.total = self.total + part
        self.images += images


class Course:
    """Adds up the losses of the batches; gives means over all ranks where they are asked for."""

    def __init__(self) -> None:
        self.epoch, self.block, self.row = Mean(), Mean(), Mean()
        self.blocks: list[Mean] = []
        self._clock: tuple[float, int] | None = None
        self._away: float | None = None

    def add(self, losses: Tensor, images: int, logged: bool) -> None:
        """Takes the losses of this rank's part of a batch of `images` images."""
        part = losses.detach().sum(dtype=_exact(losses.device))
        self.epoch.add(part, images)
        self.block.add(part, images)
        if logged:
            self.row.add(part, images)

    def end_step(self, trainer: Any, planned: int, images_seen: int, logged: bool) -> None:
        """Writes the row of the step that was just taken, where one is due, and closes a tenth of the planned steps."""
        if logged:
            rate = trainer.optimizers[0].param_groups[0]["lr"]  # still that of this step
            log_row(trainer, {"lr": rate, **self._take_row(trainer, images_seen)}, trainer.global_step)
        if (trainer.global_step + 1) % max(1, planned // BLOCKS) == 0:
            self.blocks.append(self.block)
            self.block = Mean()

    def _take_row(self, trainer: Any, images_seen: int) -> dict[str, float]:
        """The mean loss of the step, and the speed since the last row; waits for the device."""
        row, self.row = self.row, Mean()
        values = {"train_loss": means([row], trainer)[0]}
        now = time.perf_counter()
        if self._clock is not None and now > self._clock[0]:
            values["images_per_second"] = (images_seen - self._clock[1]) / (now - self._clock[0])
        self._clock = now, images_seen
        return values

    def pause(self) -> None:
        """The time of a validation is not counted as training."""
        self._away = time.perf_counter()

    def go_on(self) -> None:
        """Ends the pause."""
        if self._clock is not None and self._away is not None:
            self._clock = self._clock[0] + time.perf_counter() - self._away, self._clock[1]
        self._away = None

    def take_epoch(self, trainer: Any) -> float:
        """The mean over the images trained on since this was last asked; NaN for none."""
        epoch, self.epoch = self.epoch, Mean()
        return means([epoch], trainer)[0]

    def learning(self, trainer: Any) -> dict[str, float]:
        """The mean loss over the first and over the last tenth of the planned steps.

        Of a run that ended in its second tenth, the end is what it took of that; one that ended before has neither.
        """
        parts = [*self.blocks, self.block] if len(self.blocks) == 1 and self.block.images else self.blocks
        if len(parts) < 2:
            return {}
        start, end = means([parts[0], parts[-1]], trainer)
        return {"train_loss_start": start, "train_loss_end": end}

    def state(self, trainer: Any) -> dict[str, Any]:
        """Plain numbers for a checkpoint: sums over all ranks."""
        parts = [self.epoch, self.block, *self.blocks]
        pairs = [list(pair) for pair in zip(_summed(parts, trainer), (part.images for part in parts), strict=True)]
        return {"epoch": pairs[0], "block": pairs[1], "blocks": pairs[2:]}

    def load(self, state: Mapping[str, Any], rank: int) -> None:
        """Takes the sums up again: they are over all ranks, so they belong to one of them."""
        self.epoch, self.block, *self.blocks = (
            Mean(float(total) if rank == 0 else 0.0, int(images))
            for total, images in (state["epoch"], state["block"], *state["blocks"])
        )


def means(parts: list[Mean], trainer: Any) -> list[float]:
    """The mean of each over the images of all ranks; NaN for none."""
    sums = _summed(parts, trainer)
    return [total / part.images if part.images else float("nan") for total, part in zip(sums, parts, strict=True)]


def _summed(parts: list[Mean], trainer: Any) -> list[float]:
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
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=step)
        logger.save()
