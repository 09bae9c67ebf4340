"""Training and measuring: the one LightningModule, whatever the network's axes and the objective say."""

from dataclasses import fields
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vitexp.data.batch import Batch
from vitexp.data.mixing import partners
from vitexp.data.module import ShardData
from vitexp.data.order import EVALUATION
from vitexp.learn.average import averaged, take_in
from vitexp.learn.config import ClassifyConfig, check_objective
from vitexp.learn.masked import MaskedPatches, unused
from vitexp.learn.optim import build_optimizer, check_optim, lr_factor
from vitexp.nn.vit import ViTConfig, build, resolve


class NonFinite(RuntimeError):
    """The gradient is no longer a number; going on would only spend time."""

    exit_status = 1


class Classify(L.LightningModule):
    """Trains and measures one network on exact global batches.

    Keyword arguments are the fields of `ClassifyConfig`.

    Raises: ValueError when an option is out of range or has no effect in this combination.
    """

    epoch_loss: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.config = cast(ClassifyConfig, resolve(ClassifyConfig(**kwargs)))
        check_optim(self.config)
        check_objective(self.config)
        self.network = build(network_config(self.config))
        self.average = averaged(self.network) if self.config.polyak else None
        self.measurements: dict[str, float] = {}
        self.images_seen = 0
        self.register_buffer("epoch_loss", torch.zeros(2), persistent=False)  # summed over images, and their number
        self._seed = torch.initial_seed()
        self.masked = self._masked()
        self.readings = nn.ModuleDict({split: self._readings() for split in ("val", "test")})

    @property
    def measured(self) -> nn.Module:
        """The network that is measured: the averaged weights, where there are any."""
        return self.network if self.average is None else self.average

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Shapes: images (B, 3, rows, columns) in [-1, 1] -> (B, classes)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The rank's share of the global mean loss; DDP's mean over ranks makes it whole."""
        if self.config.dropout:
            self._seed_step()
        losses = self._losses(batch)
        loss = losses.sum() * (self.trainer.world_size / batch.total)
        self.images_seen += batch.total
        self.epoch_loss[0] += losses.detach().sum()
        self.epoch_loss[1] += len(losses)  # as a plain number: a tensor made here would wait for the device
        if self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train_loss", loss.detach(), sync_dist=True)
            self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Counts each image of the batch once."""
        self._measure("val", batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Counts each image of the batch once."""
        self._measure("test", batch)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Sample numbers, labels and class probabilities.

        Raises: ValueError for a network that knows no classes.
        """
        if self.masked is not None:
            raise ValueError(f"a network of model.objective {self.config.objective} knows no classes; fine-tune it")
        probabilities = probabilities_of(self.measured(batch.images).float(), self.config)
        return {"samples": batch.samples, "labels": batch.labels, "probabilities": probabilities}

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule; the steps are counted from the data, never by the trainer's estimate."""
        optimizer = build_optimizer(self.config, self.trained())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(self.config, self.total_steps()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """The step, which the average of the weights takes in."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            take_in(self.average, self.network, self.config.polyak, self.global_step + 1)

    def conclude(self, weights: dict[str, Tensor] | None = None) -> None:
        """The network becomes what is measured: the weights given, or else the averaged ones."""
        state = self.measured.state_dict() if weights is None else weights
        for network in filter(None, (self.network, self.average)):
            network.load_state_dict(state)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clips by global norm; the norm is the same on all ranks, so all of them stop at a number that is none."""
        if gradient_clip_val is not None:
            raise ValueError("trainer.gradient_clip_val has no effect here; set model.clip_norm instead")
        if not (self.config.clip_norm or self._looks_now()):
            return
        parameters = [parameter for _, parameter in self.trained()]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._looks_now() and not torch.isfinite(norm):
            raise NonFinite(
                f"the gradient's norm became {norm.item()} in step {self.global_step} (epoch {self.current_epoch}); "
                "lower model.lr, lengthen model.warmup_steps or set model.clip_norm"
            )
        if self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, norm)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that gradients reach, by name."""
        return [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]

    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        trainer = self.trainer
        data: ShardData = trainer.datamodule  # type: ignore[attr-defined]
        steps = planned_steps(data, trainer.max_epochs, trainer.max_steps, trainer.accumulate_grad_batches)
        # A trial of one batch has no room for a warm-up, and is no reason to refuse it.
        return max(steps, int(self.config.warmup_steps) + 1) if trainer.fast_dev_run else steps  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what a resumed run counts on, and what rebuilds the network: plain numbers and words only."""
        epoch_loss = self._summed_epoch_loss().tolist()
        checkpoint["vitexp"] = {"images_seen": self.images_seen, "epoch_loss": epoch_loss, "model": plain(self.config)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the counts up again."""
        kept = checkpoint.get("vitexp", {})
        self.images_seen = int(kept.get("images_seen", 0))
        if self.global_rank == 0:  # the sum over ranks, so it belongs to one of them
            self.epoch_loss.copy_(torch.tensor(kept.get("epoch_loss", [0.0, 0.0])))

    def take_epoch_loss(self) -> float:
        """The mean over the images trained on since this was last asked, on all ranks; NaN for none."""
        total, images = self._summed_epoch_loss().tolist()
        self.epoch_loss.zero_()
        return float(total / images) if images else float("nan")

    def _summed_epoch_loss(self) -> Tensor:
        if self._trainer is None or self.trainer.world_size == 1:
            return self.epoch_loss
        summed: Tensor = self.trainer.strategy.reduce(self.epoch_loss.clone(), reduce_op="sum")
        return summed

    def _measure(self, split: str, batch: Batch) -> None:
        if not len(batch.labels):
            return
        readings: Any = self.readings[split]
        if self.masked is not None:
            losses, right = self.masked(self.network, batch, EVALUATION)
            if right is not None:
                readings["colour_acc"].update(right)
        else:
            logits = self.measured(batch.images).float()
            losses = image_losses(logits, batch.labels, self.config)
            readings["acc"].update(logits.argmax(-1), batch.labels)
        readings["loss"].update(losses)

    def _losses(self, batch: Batch) -> Tensor:
        """One loss per image of a training batch."""
        if self.masked is None:
            return batch_losses(self(batch.images), batch, self.config)
        losses: Tensor = self.masked(self.network, batch, self.current_epoch)[0]
        return losses

    def _masked(self) -> MaskedPatches | None:
        """What predicts patches; the parts of the network that only classes need then rest."""
        if self.config.objective == "classify":
            return None
        masked = MaskedPatches(self.network, self.config.objective, self.config.masked_share, self._seed)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not unused(name, self.network))
        return masked

    def _readings(self) -> nn.ModuleDict:
        """What is measured over a split."""
        if self.masked is None:
            return nn.ModuleDict({"acc": _accuracy(self.config.classes), "loss": MeanMetric()})
        right = {} if self.config.objective == "masked_pixels" else {"colour_acc": MeanMetric()}
        return nn.ModuleDict(right | {"loss": MeanMetric()})

    def on_validation_epoch_end(self) -> None:
        """Logs the validation numbers."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Logs the test numbers."""
        self._report("test")

    def _report(self, split: str) -> None:
        for name, reading in self.readings[split].items():  # type: ignore[operator]
            value = self.measurements[f"{split}_{name}"] = float(reading.compute())
            self.log(f"{split}_{name}", value, prog_bar=split == "val", rank_zero_only=True)
            reading.reset()

    def _looks_now(self) -> bool:
        """A look at a number waits for an accelerator, so there it is taken only when something is logged anyway."""
        return self.device.type == "cpu" or self.global_step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def _seed_step(self) -> None:
        """Dropout depends on (seed, step, rank) alone, so a resumed run draws what an unbroken one would have drawn."""
        torch.manual_seed(((self._seed * 1_000_003 + self.global_step) * 65_537 + self.global_rank) % 2**63)


def planned_steps(data: ShardData, max_epochs: int | None, max_steps: int, accumulate: int = 1) -> int:
    """Optimiser steps that a trainer with these limits takes on a data set.

    Raises: ValueError when neither epochs nor steps are limited.
    """
    limits = []
    if max_epochs is not None and max_epochs >= 0:
        limits.append(-(-data.steps_per_epoch // accumulate) * max_epochs)
    if max_steps >= 0:
        limits.append(max_steps)
    if not limits:
        raise ValueError("the run has no end: give --trainer.max_epochs or --trainer.max_steps")
    return max(1, min(limits))


def image_losses(logits: Tensor, labels: Tensor, config: ClassifyConfig) -> Tensor:
    """One loss per image, in fp32. Shapes: (B, classes), (B) -> (B).

    Source: sigmoid cross-entropy summed over classes is the paper's pre-training loss (paper sheet 2.2).
    """
    logits = logits.float()
    smoothing = config.label_smoothing
    if config.loss == "softmax":
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
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
    return logits.softmax(-1) if config.loss == "softmax" else logits.sigmoid()


def network_config(config: ClassifyConfig) -> ViTConfig:
    """The network's own part."""
    return ViTConfig(**{field.name: getattr(config, field.name) for field in fields(ViTConfig)})


def plain(config: ClassifyConfig) -> dict[str, Any]:
    """The config as words and numbers."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def _accuracy(classes: int) -> MulticlassAccuracy:
    return MulticlassAccuracy(classes, average="micro", validate_args=False)
