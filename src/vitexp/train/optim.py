"""Optimiser and learning-rate schedule, as the paper trains."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "linear", "constant", "staircase"]
Decay = Literal["all", "kernels"]

STAIRS = (1 / 3, 2 / 3, 8 / 9)
"""Source: BiT trains 90 epochs and divides by 10 after 30, 60 and 80 (paper sheet 9)."""
LINEAR_FLOOR = 1e-5
"""Source: Google's schedules end the linear decay here and not at 0 (paper sheet 2.2)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights are updated."""

    optimizer: Optimizer = "adamw"
    """Adam with decoupled weight decay (paper: pre-training), or SGD with momentum 0.9 (paper: fine-tuning)."""
    lr: float = 1.0e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """adamw: decoupled, times the current rate, as in the paper's Table 3. sgd: an L2 penalty."""
    decay: Decay = "all"
    """Which weights decay: all of them (as the paper's optimiser did), or only matrices and convolutions."""
    schedule: Schedule = "cosine"
    """Shape of the learning rate after the warm-up; linear ends at 1e-5, cosine at 0, staircase falls to a tenth
    after 1/3, 2/3 and 8/9 of the run."""
    warmup_steps: int | float = 0
    """Steps over which the learning rate rises linearly from 0; below 1, that share of the run's steps."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0 leaves it as it is."""
    polyak: float = 0.0
    """Decay per step of a running average of the weights, which is then what is measured and kept; 0 for none."""


def check_optim(config: OptimConfig) -> None:
    """Refuses values that no run could mean.

    Raises: ValueError.
    """
    for name, least in (("lr", 0.0), ("weight_decay", 0.0), ("warmup_steps", 0), ("clip_norm", 0.0)):
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= least):
            raise ValueError(f"model.{name} is {value}; it must be a finite number of at least {least}")
    if not 0.0 <= config.polyak < 1.0:
        raise ValueError(f"model.polyak is {config.polyak}; it must be at least 0 and below 1, such as 0.9999")


def settled(config: OptimConfig, total_steps: Callable[[], int]) -> OptimConfig:
    """The config with its warm-up in steps. A share is rounded to the nearest step, so that records hold steps alone.

    Raises: ValueError for a warm-up that is neither whole steps nor a share.
    """
    warmup = config.warmup_steps
    if 0 < warmup < 1:
        warmup = round(warmup * total_steps())
    if warmup != int(warmup):
        raise ValueError(f"model.warmup_steps is {warmup}; give whole steps, or a share of the run's steps below 1")
    return replace(config, warmup_steps=int(warmup))


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of optimiser step `step`, counted from 0.

    Source: the schedules of Google's released code, p = clip((t - w) / (T - w), 0, 1); paper sheet 2.2.
    """
    warmup = config.warmup_steps
    progress = min(max((step - warmup) / max(1, total_steps - warmup), 0.0), 1.0)
    if config.schedule == "cosine":
        rate = config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    elif config.schedule == "linear":
        floor = min(LINEAR_FLOOR, config.lr)
        rate = floor + (config.lr - floor) * (1.0 - progress)
    elif config.schedule == "staircase":
        rate = config.lr * 0.1 ** sum(step >= stair * total_steps for stair in STAIRS)
    else:
        rate = config.lr
    return rate * min(1.0, step / warmup) if warmup else rate


def lr_factor(config: OptimConfig, total_steps: int) -> Callable[[int], float]:
    """The schedule as a multiple of the peak, for `LambdaLR`."""
    config = settled(config, lambda: total_steps)
    check_length(config, total_steps)
    return lambda step: learning_rate(config, step, total_steps) / config.lr if config.lr else 0.0


def check_length(config: OptimConfig, total_steps: int) -> None:
    """Raises: ValueError when the warm-up would not end before the run does."""
    if config.warmup_steps >= total_steps:
        raise ValueError(
            f"model.warmup_steps is {config.warmup_steps}, but the whole run has {total_steps} steps; "
            "shorten the warm-up or train longer"
        )


def build_optimizer(config: OptimConfig, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters, in two groups when only kernels decay."""
    trainable = [(name, p) for name, p in named_parameters if p.requires_grad]
    decayed = [p for name, p in trainable if config.decay == "all" or _is_kernel(name, p)]
    spared = [p for name, p in trainable if config.decay == "kernels" and not _is_kernel(name, p)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.999), fused=True)


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
