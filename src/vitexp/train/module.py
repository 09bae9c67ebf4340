"""Training and measuring: the one LightningModule, whatever the network's axes and the objective say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from vitexp.data.batch import Batch
from vitexp.data.module import ShardData
from vitexp.data.order import EVALUATION
from vitexp.eval import metrics
from vitexp.lightning_private import QuickNotes, attached_trainer
from vitexp.metrics import LIMITED
from vitexp.nn import config as axes
from vitexp.nn.vit import build, resolve
from vitexp.own import allowing, check_allowed
from vitexp.train.answers import Measured, Part, check_resumed, collected
from vitexp.train.average import averaged, take_in, take_over
from vitexp.train.config import ClassifyConfig, Loss, Objective, check_objective, plain
from vitexp.train.identity import read_checkpoint
from vitexp.train.losses import TrainingLoss, batch_losses, image_losses, log_row, probabilities_of
from vitexp.train.masked import MaskedPatches, Target, unused
from vitexp.train.optim import Decay, Optimizer, Schedule, build_optimizer, check_optim, clip, lr_factor
from vitexp.train.own_parts import switches
from vitexp.train.trainer_flags import Limits


class Classifier(QuickNotes, L.LightningModule):
    """Trains and measures one network on exact global batches, under any `lightning.Trainer`.

    The arguments are the options that `vitexp fit --help` explains as `--model.NAME`; `ClassifyConfig` documents and
    checks them. All are hyper-parameters, so `Classifier.load_from_checkpoint(path)` gives the trained network.

    Batches of `ShardData` carry the size of the global batch: the loss is its exact mean on any number of ranks. Plain
    `(images, labels)` are whole global batches. Shapes: images (B, 3, rows, columns) in [-1, 1], labels int64 (B,).

    Raises: ValueError when an option is out of range or has no effect in this combination.
    """

    places: Tensor | None
    compiled: Callable[[Tensor], Tensor] | None = None
    """The network's compiled form, in training with `run.compile`; a function, so that no weight has a second name."""

    def __init__(
        self,
        *, arch: str = "B/16", image_size: tuple[int, int] | int = 224, classes: int = 1000,
        pos_embed: axes.PosEmbed = "1d", pos_at: axes.PosAt = "stem", pos_std: float | None = None,
        pos_join: axes.PosJoin = "add", pool: axes.Pool = "cls", stem: axes.Stem = "auto",
        attention: axes.Attention = "full", window: int = 3, resnet: axes.Resnet = "preact", gelu: axes.Gelu = "tanh",
        head: axes.Head = "linear", head_bias: float = 0.0, dropout: float = 0.0, registers: int = 0,
        block: axes.Block = "sequential", norm: axes.Norm = "layer", mlp: axes.Mlp = "gelu", qk_norm: bool = False,
        layer_scale: float = 0.0, drop_path: float = 0.0, patch_dropout: float = 0.0,
        options: dict[str, dict[str, Any]] | None = None, sources: dict[str, str] | None = None,
        optimizer: Optimizer = "adamw", lr: float = 0.001, weight_decay: float = 0.0, decay: Decay = "all",
        betas: tuple[float, float] | None = None, eps: float | None = None, layer_decay: float = 1.0,
        schedule: Schedule = "cosine", warmup_steps: int | float = 0, warmup_epochs: float = 0.0, min_lr: float = 0.0,
        clip_norm: float = 0.0, polyak: float = 0.0, objective: Objective = "classify", masked_share: float = 0.5,
        loss: Loss = "softmax", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.configure(resolve(ClassifyConfig(**given)))
        self.network = build(axes.network_config(self.config))
        self.average = averaged(self.network) if self.config.polyak or switches(self.config) else None
        self._behind: Any = None  # the optimizer whose weights for evaluation the average has yet to take over
        self.measurements: dict[str, float] = {}
        self.measured_images: dict[str, Measured] = {}
        self.measured_weights: dict[str, list[int]] = {}
        self.class_names: tuple[str, ...] = ()
        self.withheld: tuple[str, ...] = ()  # splits whose numbers no logger gets
        self.register_buffer("places", None, persistent=False)  # the class for each label of a data set
        self.images_seen = 0
        self.train_loss = TrainingLoss()
        self._seed = torch.initial_seed()
        self.masked = None if self.config.objective == "classify" else self._masked(self.config.objective)
        self.readings = nn.ModuleDict({split: self._readings() for split in ("val", "test")})
        self.answers: dict[str, list[Part]] = {"val": [], "test": []}

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # nothing in the file is ever executed
        cls, checkpoint_path: str | Path, map_location: Any = None, strict: bool = True, **options: Any
    ) -> Self:
        """The trained network of a checkpoint, in eval mode; `options` replace hyper-parameters that it was made with.

        The weights are those that the run measured, best or averaged. `allow_import=True` imports parts that it names.

        Raises: ValueError for a file that is no checkpoint of a run, or holds more than tensors and plain values.
        """
        options = {key: value for key, value in options.items() if key not in ("hparams_file", "weights_only")}
        checkpoint = read_checkpoint(checkpoint_path, map_location or "cpu")
        own = checkpoint["vitexp"]
        with allowing(options.pop("allow_import", False)):
            check_allowed(own["model"], str(checkpoint_path))
            module = cls(**{**own["model"], **options})
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
        module.conclude()
        module.class_names = tuple(own.get("classes") or ())
        module.images_seen = int(own.get("images_seen", 0))
        return module.eval()

    def configure(self, config: ClassifyConfig) -> None:
        """Takes the resolved options, as hyper-parameters too. Raises: ValueError for those that do not go together."""
        check_optim(config)
        check_objective(config)
        self.config = config
        self.save_hyperparameters(plain(config), logger=False)  # loggers get the config of the whole run

    @property
    def measured(self) -> nn.Module:
        """The network that is measured: the averaged weights, where there are any."""
        if self._behind is not None and self.average is not None:
            take_over(self.average, self.network, self._behind)
            self._behind = None
        return self.network if self.average is None else self.average

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Shapes: images (B, 3, rows, columns) in [-1, 1] -> (B, classes)."""
        logits: Tensor = (self.network if self.compiled is None or not self.training else self.compiled)(images)
        return logits

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The training loss of each image. Override it for a loss of your own.

        Shapes: logits (B, classes); batch.labels int64 (B,), and batch.recipe where images are mixed -> (B,).
        """
        return batch_losses(logits, batch, self.config)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The rank's share of the global mean loss; DDP's mean over ranks makes it whole."""
        batch = self._whole(batch, batch_index)
        if self.config.draws:  # depends on (seed, step, rank) alone: a resumed run draws what an unbroken one does
            step = (self._seed * 1_000_003 + self.global_step) * 65_537 + self.global_rank
            torch.manual_seed(step % 2**63)
        if self.masked is None:
            losses = self.loss(self(batch.images), batch)
        else:
            losses, _ = self.masked(self.network, batch, self.current_epoch)
        loss = losses.sum() * (self.trainer.world_size / batch.total)
        self.images_seen += batch.total
        logged = self._is_logged()
        self.train_loss.add(losses, batch.total, logged)
        if logged:  # for callbacks that watch it; the loggers get it from `optimizer_step`, in the row of its step
            self.log("train_loss", loss.detach(), sync_dist=True, logger=False)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Counts each image of the batch once."""
        self._measure("val", self._whole(batch, batch_index), batch_index)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Counts each image of the batch once."""
        self._measure("test", self._whole(batch, batch_index), batch_index)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Sample numbers, labels and class probabilities. Raises: ValueError for a network that knows no classes."""
        if self.masked is not None:
            raise ValueError(f"a network of model.objective {self.config.objective} knows no classes; fine-tune it")
        batch = self._whole(batch, batch_index)
        probabilities = probabilities_of(self.measured(batch.images).float(), self.config)
        return {"samples": batch.samples, "labels": self._classes_of(batch), "probabilities": probabilities}

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule; the steps are counted from the data, never by the trainer's estimate."""
        optimizer = build_optimizer(self.config, self.trained())
        self._steps, self._every_parameter = self.total_steps(), list(self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(self.config, self._steps, self.epoch_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """The step, which the average of the weights takes in; its row in the loggers, where one is due."""
        super().optimizer_step(*arguments, **options)
        self.train_loss.end_step(self.trainer, self._steps, self.images_seen, self._is_logged())
        if self.average is not None and self.config.polyak:
            take_in(self.average, self.network, self.config.polyak, self.global_step + 1)
        elif self.average is not None:
            self._behind = self.trainer.optimizers[0]

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """The weights that train, and those that are measured as they now are."""
        self.measured  # noqa: B018
        return super().state_dict(*arguments, **options)

    def conclude(self, weights: dict[str, Tensor] | None = None) -> None:
        """The network becomes what is measured: the weights given, or else the averaged ones."""
        state = self.measured.state_dict() if weights is None else weights
        for network in filter(None, (self.network, self.average)):
            network.load_state_dict(state)

    @torch.no_grad()
    def weight_sums(self) -> list[int]:
        """For each tensor that is measured its bits, added up: alike on every device, other if a weight changes."""
        whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        state = (self.measured if self.masked is None else self).state_dict().values()
        bits = (value.detach().contiguous().view(whole[value.element_size()]) for value in state)
        return [int(one) for one in torch.stack([value.sum(dtype=torch.int64) for value in bits]).tolist()]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clips by the global norm, where `clip_norm` is set. Raises: NonFinite when the norm is not finite."""
        if gradient_clip_val is not None:
            raise ValueError("trainer.gradient_clip_val has no effect here; set model.clip_norm instead")
        # a look at a number waits for an accelerator, so there it is taken only when something is logged anyway
        look = self.device.type == "cpu" or self._is_logged()
        if self.config.clip_norm or look:
            trained = [parameter for parameter in self._every_parameter if parameter.requires_grad]
            clip(trained, self.config.clip_norm, lambda: f"step {self.global_step} (epoch {self.current_epoch})", look)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that gradients reach, by name."""
        return [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        trainer, data = self.trainer, self.shard_data
        if data is None:  # Lightning counts the batches of the loaders that it was given
            return int(trainer.estimated_stepping_batches)
        steps = Limits.of(trainer).steps(data)
        # A trial of one batch has no room for a warm-up, and is no reason to refuse it.
        return max(steps, int(self.config.warmup_steps) + 1) if trainer.fast_dev_run else steps  # type: ignore[attr-defined]

    def epoch_steps(self) -> int:
        """Optimizer steps of an epoch."""
        if self.shard_data:
            return Limits.of(self.trainer).steps_per_epoch(self.shard_data)
        return -(-int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what a resumed run counts on, and what rebuilds the network: plain numbers and words only."""
        kept = {"images_seen": self.images_seen, "course": self.train_loss.state(self.trainer)}
        names = list(self.shard_data.class_names) if self.shard_data else None
        checkpoint["vitexp"] = kept | {"model": plain(self.config), "classes": names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the counts up again."""
        kept = checkpoint.get("vitexp", {})
        if self.shard_data and self.trainer.state.fn == TrainerFn.FITTING:
            check_resumed(kept.get("classes"), self.shard_data.class_names)
        self.images_seen = int(kept.get("images_seen", 0))
        if "course" in kept:
            self.train_loss.load(kept["course"], self.global_rank)

    @property
    def shard_data(self) -> ShardData | None:
        """The data of the trainer that the module is attached to; None where they are no `ShardData`."""
        data = getattr(attached_trainer(self), "datamodule", None)
        return data if isinstance(data, ShardData) else None

    def _whole(self, batch: Any, batch_index: int) -> Batch:
        """A batch of another data module as one of ours: its images are numbered by their places."""
        if isinstance(batch, Batch):
            return batch
        images, labels = batch[:2]
        ranks, rank = self.trainer.world_size, self.global_rank
        numbers = torch.arange(len(labels)) + (batch_index << 20)
        return Batch(images, labels, numbers * ranks + rank, len(labels) * ranks)

    def _measure(self, split: str, batch: Batch, batch_index: int) -> None:
        if batch_index == 0 and not self.trainer.sanity_checking:  # not before: callbacks exchange weights at the start
            self.measured_weights[split] = self.weight_sums()
        right: Tensor | None = None
        if not len(batch.labels):
            return
        readings: Any = self.readings[split]
        if self.masked is not None:
            losses, colours = self.masked(self.network, batch, EVALUATION)
            if colours is not None:
                readings["colour_acc"].update(colours)
        else:
            logits = self.measured(batch.images).float()
            labels = self._classes_of(batch)
            losses = image_losses(logits, labels, self.config)
            right = logits.argmax(-1) == labels
            metrics.update(readings, logits, labels)
        readings["loss"].update(losses)
        self.answers[split].append((batch.samples, right))

    def _classes_of(self, batch: Batch) -> Tensor:
        """The network's classes of the images, whose labels count the classes of the data set."""
        return batch.labels if self.places is None else self.places[batch.labels]

    def _masked(self, objective: Target) -> MaskedPatches:
        """What predicts patches; the parts of the network that only classes need then rest."""
        masked = MaskedPatches(self.network, objective, self.config.masked_share, self._seed)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not unused(name, self.network))
        return masked

    def _readings(self) -> nn.ModuleDict:
        """What is measured over a split besides the share of right classes."""
        if self.masked is None:
            return nn.ModuleDict({"loss": metrics.mean(), **metrics.of_logits(self.config.classes)})
        colours = {} if self.config.objective == "masked_pixels" else {"colour_acc": metrics.mean()}
        return nn.ModuleDict({**colours, "loss": metrics.mean()})

    def on_validation_start(self) -> None:
        """The clock of training stops."""
        self.train_loss.pause()

    def on_validation_end(self) -> None:
        """The clock of training goes on."""
        self.train_loss.go_on()

    def on_validation_epoch_end(self) -> None:
        """Logs the validation numbers."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Logs the test numbers."""
        self._report("test")

    def _report(self, split: str) -> None:
        """The numbers of a split under their names: `limited_val_acc` where not all of its images were measured."""
        measured, self.answers[split] = collected(self.answers[split]), []
        found = {} if measured.right is None else {"acc": int(measured.right.sum()) / len(measured.right)}
        for name, reading in self.readings[split].items():  # type: ignore[operator]
            found[name] = float(reading.compute())
            reading.reset()
        limited = self.shard_data is not None and len(measured.samples) < self.shard_data.count(split)
        if limited:
            found["images"] = float(len(measured.samples))
        values = {f"{LIMITED if limited else ''}{split}_{name}": value for name, value in found.items()}
        if self.trainer.sanity_checking:  # what Lightning measures to try the loop is nobody's number
            return
        self.measured_images[split] = measured
        others = {name: value for name, value in self.measurements.items() if f"{split}_" not in name}
        self.measurements = others | values
        if split in self.withheld:
            return
        for name, value in values.items():
            # Lightning's own row would stand a step early; where there are no loggers it still prints and returns them.
            shown = False if self.trainer.loggers else None
            self.log(name, value, prog_bar=split == "val", rank_zero_only=True, logger=shown)
        log_row(self.trainer, values, self.global_step)

    def _is_logged(self) -> bool:
        """Whether the step that is being taken has a row in the loggers."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and self.global_step % every == 0


Classify = Classifier  # its name before
