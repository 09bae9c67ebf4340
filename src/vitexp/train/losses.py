"""The loss of each image, and the average of the weights (EMA) that may be measured in place of the weights."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.data.batch import Batch
from vitexp.data.views import partners
from vitexp.train.config import ClassifyConfig


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
