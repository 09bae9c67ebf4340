"""What one training run is asked for, apart from the data and the trainer."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from vitexp.learn.optim import OptimConfig
from vitexp.nn.vit import ViTConfig

Loss = Literal["softmax", "sigmoid"]
Objective = Literal["classify", "masked_mean", "masked_small", "masked_pixels"]
Wandb = Literal["auto", "online", "offline", "off"]
Keep = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ViTConfig, OptimConfig):
    """The network, its loss and its optimiser, as one flat group of flags."""

    objective: Objective = "classify"
    """What is learned: classes, or corrupted patches: their mean colour, 4x4 mean colours, or all their pixels."""
    masked_share: float = 0.5
    """Share of the patches of an image that is corrupted, where patches are predicted."""
    loss: Loss = "softmax"
    """Cross-entropy over classes, or one sigmoid per class summed over classes (the paper's pre-training)."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes (softmax), or the off value and 1 minus it (sigmoid)."""


_MOST_MINUTES = 366 * 24 * 60
_ONLY_CLASSES = ("loss", "label_smoothing", "head", "head_bias", "polyak")
_ONLY_PATCHES = ("masked_share",)


def check_objective(config: ClassifyConfig) -> None:
    """Raises: ValueError when the smoothing is no share, or an option has no effect on what is learned."""
    if not 0.0 <= config.label_smoothing < 1.0:
        raise ValueError(f"model.label_smoothing is {config.label_smoothing}; it must be at least 0 and below 1")
    without_effect = _ONLY_PATCHES if config.objective == "classify" else _ONLY_CLASSES
    for name in without_effect:
        if getattr(config, name) != getattr(ClassifyConfig, name):
            given = f"model.{name} {getattr(config, name)}"
            raise ValueError(f"{given} has no effect with model.objective {config.objective}; leave it out")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run leaves its traces, and what is measured after training."""

    root: str = "runs"
    """Folder of all run records."""
    dir: str | None = None
    """This run's folder, if it is not to be root/study/cell/seed-n."""
    wandb: Wandb = "auto"
    """W&B: online with a key and offline without (auto), or as said; WANDB_MODE overrules auto."""
    project: str = "vitexp"
    """W&B project."""
    init: str = "none"
    """Weights to start from: a checkpoint, .safetensors, .npz, .pt, FILE#prefix for one of several networks in a file,
    or timm:NAME; the head starts at zero."""
    download: bool = False
    """Fetch timm:NAME of init where it is not on this machine."""
    keep: Keep = "last"
    """Which weights are measured and kept: the last, or those of the best validation accuracy (early stopping)."""
    checkpoint: bool = True
    """Keep the last weights, with all that a resume needs."""
    checkpoint_steps: int = 0
    """Steps between two checkpoints on the way; 0 for one every checkpoint_minutes."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints on the way; the last step is always kept."""
    test: bool = True
    """Measure the test split once, after the last step."""
    shots: list[int] = field(default_factory=lambda: [5])
    """Few-shot linear probes after training: images per class; empty for none."""
    shot_seeds: int = 3
    """Draws of the few-shot images; the accuracy is their mean."""

    def __post_init__(self) -> None:
        if any(shots < 1 for shots in self.shots) or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"run.shots is {self.shots}; give different numbers of images a class, each at least 1")
        if self.shot_seeds < 1:
            raise ValueError(f"run.shot_seeds is {self.shot_seeds}; at least 1 draw is needed (for none, run.shots [])")
        if self.checkpoint_steps < 0:
            raise ValueError(f"run.checkpoint_steps is {self.checkpoint_steps}; give 0 or more steps")
        if not 0 < self.checkpoint_minutes <= _MOST_MINUTES:
            raise ValueError(f"run.checkpoint_minutes is {self.checkpoint_minutes}; give more than 0, up to a year")

    def checkpoint_trigger(self) -> dict[str, Any]:
        """When a checkpoint is due, in the words of Lightning's ModelCheckpoint."""
        if self.checkpoint_steps:
            return {"every_n_train_steps": self.checkpoint_steps}
        return {"train_time_interval": timedelta(minutes=self.checkpoint_minutes)}
