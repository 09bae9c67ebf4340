"""Polyak averaging: a running average of the weights, which is measured in place of the weights themselves."""

import copy

import torch
from torch import nn


def averaged(network: nn.Module) -> nn.Module:
    """A second set of the weights, which no gradient reaches."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def take_in(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Takes the weights after optimiser step `step`, counted from 1, into the average.

    The weights after step k count `decay ** (step - k)`, those before the first step nothing: a fixed share per step
    would leave the start, a zero head among it, in the average of a short run.
    """
    share = (1 - decay) / (1 - decay**step)
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), share)
