"""The weights that are measured and kept, where they are not those that train: a running average (`model.polyak`), or
what an optimizer that switches between both gives, as schedule-free ones do.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def averaged(network: nn.Module) -> nn.Module:
    """A second set of the weights, which no gradient reaches."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def take_in(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Takes the weights after optimizer step `step`, counted from 1, into the average.

    The weights after step k count `decay ** (step - k)`, those before the first step nothing: a fixed share per step
    would leave the start, a zero head among it, in the average of a short run.
    """
    share = (1 - decay) / (1 - decay**step)
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), share)
    _copy(average.buffers(), network.buffers())


@torch.no_grad()
def take_over(average: nn.Module, network: nn.Module, optimizer: Any) -> None:
    """Takes the weights that the optimizer evaluates with into the average; those that train stay, to the bit.

    Its own way there and back rounds, so that training would depend on how often it is measured.
    """
    training = [weight.clone() for weight in network.parameters()]
    optimizer.eval()
    _copy(average.parameters(), network.parameters())
    _copy(average.buffers(), network.buffers())
    optimizer.train()
    _copy(network.parameters(), training)


def _copy(these: Iterable[Tensor], those: Iterable[Tensor]) -> None:
    for one, other in zip(these, those, strict=True):
        one.copy_(other)
