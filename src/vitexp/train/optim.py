"""Optimizer and learning-rate schedule, as the paper trains."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from vitexp.axes import OwnPart, is_path
from vitexp.own import Slot
from vitexp.train.own_parts import check_own_optimizer, check_own_schedule, check_switching, own_optimizer, own_rate

_Word = Literal["adamw", "sgd", "muon", "lion", "lamb", "adafactor"]
Optimizer = _Word | OwnPart
_Shape = Literal["cosine", "linear", "constant", "staircase"]
Schedule = _Shape | OwnPart
Decay = Literal["all", "kernels"]

STAIRS = (1 / 3, 2 / 3, 8 / 9)
"""Source: BiT trains 90 epochs and divides by 10 after 30, 60 and 80 (paper sheet 9)."""
_TAKES: dict[str, tuple[str, ...]] = {
    "adamw": ("betas", "eps"), "sgd": (), "muon": ("betas", "eps"), "lion": ("betas",), "lamb": ("betas", "eps"),
    "adafactor": (),
}  # fmt: skip
"""Which of these options an optimizer has."""
Slot("optimizer", torch.optim.Optimizer, ("step",), arguments=1, given=("lr", "weight_decay"), words=get_args(_Word))
Slot("schedule", object, ("__call__",), words=get_args(_Shape), called=2)
LINEAR_FLOOR = 1e-5
"""Source: Google's schedules end the linear decay here and not at 0 (paper sheet 2.2)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights are updated."""

    optimizer: Optimizer = "adamw"
    """Adam with decoupled weight decay (paper: pre-training), SGD with momentum 0.9 (paper: fine-tuning), timm's
    Muon (AdamW for the head and for what is no matrix), Lion, LAMB, or Adafactor in big_vision's form; or your own
    (MODULE:NAME), as is schedulefree:AdamWScheduleFree."""
    lr: float = 1.0e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled, times the current rate, as in the paper's Table 3; for sgd an L2 penalty, for lamb a part of the
    update that it scales."""
    betas: tuple[float, float] | None = None
    """Decay of the averages of gradients and of their squares; null for the optimizer's own: adamw and lamb 0.9 and
    0.999, lion 0.9 and 0.99, muon 0.9 and 0.95."""
    eps: float | None = None
    """What keeps an optimizer from dividing by 0; null for its own: adamw 1e-8, lamb 1e-6, muon 1e-7."""
    layer_decay: float = 1.0
    """Each block learns at this multiple of the rate of the block above it, from the head (1) down to the stem."""
    decay: Decay = "all"
    """Which weights decay: all of them (as the paper's optimizer did), or only matrices and convolutions."""
    schedule: Schedule = "cosine"
    """Shape of the learning rate after the warm-up; linear ends at 1e-5, cosine at 0, staircase falls to a tenth
    after 1/3, 2/3 and 8/9 of the run; or your own (MODULE:NAME)."""
    warmup_steps: int | float = 0
    """Steps over which the learning rate rises linearly from 0; below 1, that share of the run's steps."""
    warmup_epochs: float = 0.0
    """The same in epochs, in place of warmup_steps."""
    min_lr: float = 0.0
    """The learning rate at which cosine ends."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0 leaves it as it is."""
    polyak: float = 0.0
    """Decay per step of a running average of the weights, which is then what is measured and kept; 0 for none."""


def check_optim(config: OptimConfig) -> None:
    """Raises: ValueError for values that no run could mean."""
    for name in ("lr", "weight_decay", "warmup_steps", "warmup_epochs", "min_lr", "clip_norm", "eps"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"model.{name} is {value}; it must be a finite number of at least 0")
    for name in ("betas", "eps"):
        if getattr(config, name) is not None and name not in _TAKES.get(config.optimizer, ()):
            those = " or ".join(word for word, options in _TAKES.items() if name in options)
            raise ValueError(f"model.{name} has no effect with model.optimizer {config.optimizer}; it is for {those}")
    if config.betas is not None and not (len(config.betas) == 2 and all(0 <= beta < 1 for beta in config.betas)):
        raise ValueError(f"model.betas is {list(config.betas)}; give two numbers of at least 0 and below 1")
    if not 0 < config.layer_decay <= 1:
        raise ValueError(f"model.layer_decay is {config.layer_decay}; it must be above 0, up to 1 (no decay)")
    _check_schedule(config)
    if is_path(config.optimizer):
        check_own_optimizer(config)
        check_switching(config)
    if not 0.0 <= config.polyak < 1.0:
        raise ValueError(f"model.polyak is {config.polyak}; it must be at least 0 and below 1, such as 0.9999")


def _check_schedule(config: OptimConfig) -> None:
    if config.min_lr and config.schedule != "cosine":
        raise ValueError(f"model.min_lr has no effect with model.schedule {config.schedule}; it is for cosine")
    if config.min_lr > config.lr:
        raise ValueError(f"model.min_lr is {config.min_lr}, above model.lr {config.lr}; give a smaller one")
    if config.warmup_steps and config.warmup_epochs:
        raise ValueError(
            f"model.warmup_epochs {config.warmup_epochs} and model.warmup_steps {config.warmup_steps} both give the "
            "length of the warm-up; set one of them to 0"
        )


def settled(
    config: OptimConfig, total_steps: Callable[[], int], epoch_steps: Callable[[], int] | None = None
) -> OptimConfig:
    """The config with its warm-up in steps, to the nearest one, so that records hold steps alone.

    Raises: ValueError for a warm-up that is neither whole steps nor a share.
    """
    warmup = config.warmup_steps
    if 0 < warmup < 1:
        warmup = round(warmup * total_steps())
    if warmup != int(warmup):
        raise ValueError(f"model.warmup_steps is {warmup}; give whole steps, or a share of the run's steps below 1")
    if config.warmup_epochs:
        if epoch_steps is None:
            raise ValueError("model.warmup_epochs needs a run whose epochs have a length; give model.warmup_steps")
        warmup = max(1, round(config.warmup_epochs * epoch_steps()))
    return replace(config, warmup_steps=int(warmup), warmup_epochs=0.0)


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0.

    Source: the schedules of Google's released code, p = clip((t - w) / (T - w), 0, 1); paper sheet 2.2.
    """
    warmup = config.warmup_steps
    progress = min(max((step - warmup) / max(1, total_steps - warmup), 0.0), 1.0)
    if config.schedule == "cosine":
        rate = config.min_lr + (config.lr - config.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))
    elif config.schedule == "linear":
        floor = min(LINEAR_FLOOR, config.lr)
        rate = floor + (config.lr - floor) * (1.0 - progress)
    elif config.schedule == "staircase":
        rate = config.lr * 0.1 ** sum(step >= stair * total_steps for stair in STAIRS)
    elif is_path(config.schedule):
        left = total_steps - int(warmup)
        rate = config.lr * own_rate(config, min(max(step - int(warmup), 0), left), left)
    else:
        rate = config.lr
    return rate * min(1.0, step / warmup) if warmup else rate


def lr_factor(
    config: OptimConfig, total_steps: int, epoch_steps: Callable[[], int] | None = None
) -> Callable[[int], float]:
    """The schedule as a multiple of the peak, for `LambdaLR`."""
    config = settled(config, lambda: total_steps, epoch_steps)
    check_length(config, total_steps)
    return lambda step: learning_rate(config, step, total_steps) / config.lr if config.lr else 0.0


def check_length(config: OptimConfig, total_steps: int) -> None:
    """Raises: ValueError when the warm-up would not end before the run does, and for rates that cannot be."""
    if config.warmup_steps >= total_steps:
        raise ValueError(
            f"model.warmup_steps is {config.warmup_steps}, but the whole run has {total_steps} steps; "
            "shorten the warm-up or train longer"
        )
    if is_path(config.schedule):
        check_own_schedule(config, total_steps - int(config.warmup_steps))


def build_optimizer(config: OptimConfig, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters, in groups: first the head's (layer-wise), first what decays."""
    trainable = [(name, p) for name, p in named_parameters if p.requires_grad]
    rates = layer_rates([name for name, _ in trainable], config.layer_decay)
    groups: dict[tuple[float, bool, bool], dict[str, Any]] = {}
    for name, p in trainable:
        spared = config.decay == "kernels" and not _is_kernel(name, p)
        group = {"params": [], "lr": config.lr * rates[name], "weight_decay": 0.0 if spared else config.weight_decay}
        plain = config.optimizer == "muon" and (not _is_kernel(name, p) or ".head." in f".{name}")
        group |= {"use_fallback": True} if plain else {}  # timm's word for AdamW
        groups.setdefault((-rates[name], spared, plain), group)["params"].append(p)
    return _optimizer(config, [groups[key] for key in sorted(groups)])


def _optimizer(config: OptimConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if is_path(config.optimizer):
        return own_optimizer(config, groups, config.lr)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=True)
    given = {name: getattr(config, name) for name in ("betas", "eps") if getattr(config, name) is not None}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **{"lr": config.lr, "betas": (0.9, 0.999), **given})
    from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
    from timm import optim as timm

    kinds = {"muon": timm.Muon, "lion": timm.Lion, "lamb": timm.Lamb, "adafactor": timm.AdafactorBigVision}
    return kinds[config.optimizer](groups, lr=config.lr, **given)


_STEM = re.compile(r"(network\.)?(stem|position|registers|pool\.cls)\b")
_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
_NORM = re.compile(r"(network\.)?norm\.")


def layer_rates(names: Sequence[str], decay: float) -> dict[str, float]:
    """What the rate of each parameter is multiplied with: the head's by 1, and by `decay` once more for each block from
    the last (with the norm after it) to the first, and for the stem with class token and positions.

    Source: BEiT's layer-wise decay, with the layers that timm gives a ViT.
    """
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.search(name))}
    depth = max(blocks.values(), default=-1) + 1
    above = {name: depth - block for name, block in blocks.items()}
    above |= {name: depth + 1 for name in names if _STEM.match(name)}
    above |= {name: 1 for name in names if _NORM.match(name)}
    return {name: decay ** above.get(name, 0) for name in names}


def _is_kernel(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and convolutions; not the position tables or the class token, although these have rows too."""
    return name.endswith("weight") and parameter.ndim >= 2


class NonFinite(RuntimeError):
    """The gradient is no longer a number; going on would only spend time."""

    exit_status = 1


def clip(parameters: Sequence[nn.Parameter], most: float, where: Callable[[], str], look: bool) -> None:
    """Clips by the global norm, where `most` is not 0; with `look`, the norm is read, which waits for an accelerator.

    Raises: NonFinite when it is not finite; it is the same on all ranks, so all of them stop.
    """
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if look and not torch.isfinite(norm):
        raise NonFinite(
            f"the gradient's norm became {norm.item()} in {where()}; lower model.lr, lengthen model.warmup_steps or "
            "set model.clip_norm"
        )
    if most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
