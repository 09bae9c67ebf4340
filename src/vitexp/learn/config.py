"""What one training run is asked for, apart from the data and the trainer."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from vitexp.learn.optim import OptimConfig
from vitexp.nn.vit import ViTConfig

Loss = Literal["softmax", "sigmoid"]
Wandb = Literal["auto", "online", "offline", "off"]
Keep = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ViTConfig, OptimConfig):
    """The network, its loss and its optimiser, as one flat group of flags."""

    loss: Loss = "softmax"
    """Cross-entropy over classes, or one sigmoid per class summed over classes (the paper's pre-training)."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes (softmax), or the off value and 1 minus it (sigmoid)."""


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
    """Weights to start from: a checkpoint, .safetensors, .npz, or timm/NAME; the head starts at zero."""
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

    def checkpoint_trigger(self) -> dict[str, Any]:
        """When a checkpoint is due, in the words of Lightning's ModelCheckpoint."""
        if self.checkpoint_steps:
            return {"every_n_train_steps": self.checkpoint_steps}
        return {"train_time_interval": timedelta(minutes=self.checkpoint_minutes)}
