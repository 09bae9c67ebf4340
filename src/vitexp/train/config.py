"""What one training run is asked for, apart from the data and the trainer."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, get_args

from vitexp.axes import OwnPart, is_path
from vitexp.neutral import PARTS
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.own import Slot, texts
from vitexp.source import has_source, modules_hash, with_imported
from vitexp.train.optim import OptimConfig
from vitexp.train.own_parts import check_own_loss


def with_sources(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's options, in which callbacks, plugins and their like of your own carry a digest of their source."""
    return {name: described(value) if f"trainer.{name}" in PARTS else value for name, value in trainer.items()}


def described(part: Any) -> Any:
    """A part that a config names by its class, with a digest of its source where it is the user's own."""
    if isinstance(part, list | tuple):
        return [described(item) for item in part]
    if not isinstance(part, Mapping) or "class_path" not in part:
        return part
    named = {**part, "class_path": _shortest(str(part["class_path"]))}
    # where a part's code lies that is not ours, and what that imports in turn and no one has installed
    modules = with_imported(module for word in texts(part) if (module := _module_of(word)))
    return named | ({"source": modules_hash(modules)} if modules else {})


def _module_of(path: str) -> ModuleType | None:
    """The module that a dotted name lies in, where it is one that the parser has imported and not one of ours."""
    parts = path.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    module = next((sys.modules[name] for name in names if name in sys.modules), None)
    return module if module and has_source(module) and parts[0] not in sys.stdlib_module_names else None


def _shortest(path: str) -> str:
    """A class path through the outermost package that exports the class: one class, one name."""
    *parts, name = path.split(".")
    module = sys.modules.get(".".join(parts))
    for end in range(1, len(parts)):
        outer = sys.modules.get(".".join(parts[:end]))
        if module and outer and getattr(outer, name, None) is getattr(module, name, outer):
            return ".".join([*parts[:end], name])
    return path


_LossWord = Literal["softmax", "sigmoid"]
Loss = _LossWord | OwnPart
Slot("loss", object, ("__call__",), words=get_args(_LossWord), called=2)
Objective = Literal["classify", "masked_mean", "masked_small", "masked_pixels"]
Wandb = Literal["auto", "online", "offline", "off"]
Keep = Literal["last", "best"]
MatmulPrecision = Literal["highest", "high", "medium"]


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ViTConfig, OptimConfig):
    """The network, its loss and its optimizer, as one flat group of flags."""

    objective: Objective = "classify"
    """What is learned: classes, or corrupted patches: their mean colour, 4x4 mean colours, or all their pixels."""
    masked_share: float = 0.5
    """Share of the patches of an image that is corrupted, where patches are predicted."""
    loss: Loss = "softmax"
    """Cross-entropy over classes, or one sigmoid per class summed over classes (the paper's pre-training), or
    your own (MODULE:NAME)."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes (softmax), or the off value and 1 minus it (sigmoid)."""


_MOST_MINUTES = 366 * 24 * 60
_ONLY_CLASSES = ("loss", "label_smoothing", "head", "head_bias", "polyak")
_ONLY_PATCHES = ("masked_share",)


def check_objective(config: ClassifyConfig) -> None:
    """Raises: ValueError when the smoothing is no share, or an option has no effect on what is learned."""
    if not 0.0 <= config.label_smoothing < 1.0:
        raise ValueError(f"model.label_smoothing is {config.label_smoothing}; it must be at least 0 and below 1")
    if config.layer_decay != 1 and parse_arch(config.arch, config.stem).family == "resnet":
        raise ValueError(f"model.layer_decay is for networks with blocks; {config.arch} has none, so leave it out")
    if is_path(config.loss):
        if config.label_smoothing:
            smoothing = f"model.label_smoothing {config.label_smoothing}"
            raise ValueError(f"{smoothing} has no effect with model.loss {config.loss}; leave it out")
        check_own_loss(config)
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
    fewer_shots: bool = False
    """A class with fewer training images than the shots gives all it has, as in Google's protocol (else refused)."""
    evaluators: list[str] = field(default_factory=list)
    """Classes of your own (MODULE:NAME) that measure the logits of the test images after training."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of evaluators by the names of their classes: --run.options.Ece.bins 10"""
    sources: dict[str, str] = field(default_factory=dict)
    """Hashes of their files: filled in; where one is given, a changed file is refused."""
    compile: bool = False
    """Train through torch.compile, which changes rounding; measurements are of the network as it is."""
    matmul_precision: MatmulPrecision = "highest"
    """Products of fp32 matrices: in fp32, or faster with TF32 or bf16 inside (torch.set_float32_matmul_precision)."""
    threads: int = 0
    """Threads on a CPU; 0 for OMP_NUM_THREADS where it is set, else by the size of a step: one for each 10 GFLOPs, up
    to the cores."""

    def __post_init__(self) -> None:
        if any(shots < 1 for shots in self.shots) or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"run.shots is {self.shots}; give different numbers of images a class, each at least 1")
        if self.shot_seeds < 1:
            raise ValueError(f"run.shot_seeds is {self.shot_seeds}; at least 1 draw is needed (for none, run.shots [])")
        if self.threads < 0:
            raise ValueError(f"run.threads is {self.threads}; give a number of threads, or 0 to have it chosen")
        if self.checkpoint_steps < 0:
            raise ValueError(f"run.checkpoint_steps is {self.checkpoint_steps}; give 0 or more steps")
        if not 0 < self.checkpoint_minutes <= _MOST_MINUTES:
            raise ValueError(f"run.checkpoint_minutes is {self.checkpoint_minutes}; give more than 0, up to a year")


def plain(config: ClassifyConfig) -> dict[str, Any]:
    """The config as text and numbers."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}
