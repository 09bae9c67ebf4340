"""Images changed against one network: FGSM, PGD, a universal patch; and the salience of pixels, by its gradient.

Pixels are floats in 0..1 (B, 3, H, W); a network takes them in -1..1, as in training, and is in eval mode. Limits are
in pixels, infinity norm. Nothing is rounded to bytes. Source: Goodfellow et al. 2015 (FGSM); Madry et al. 2018 (PGD);
Brown et al. 2017 (adversarial patch); Simonyan et al. 2014 (salience).
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.data.order import draws, key, uniforms
from vitexp.eval.changes import PURPOSE

_PGD, _PLACES, _TRAIN_PLACES = 32, 33, 34
PATCH_RATE = 0.05
"""Adam's learning rate on the pixels of a patch."""


def logits(network: nn.Module, pixels: Tensor) -> Tensor:
    """What the network says to pixels in 0..1: (B, classes)."""
    found: Tensor = network(2 * pixels - 1)
    return found


@torch.enable_grad()
def _gradient(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """That of the sum of the losses; images do not act on each other."""
    given = pixels.detach().requires_grad_()
    loss = F.cross_entropy(logits(network, given).float(), labels, reduction="sum")
    return torch.autograd.grad(loss, given)[0]


def fgsm(network: nn.Module, pixels: Tensor, labels: Tensor, limit: float) -> Tensor:
    """One step of `limit` along the sign of the loss's gradient."""
    return (pixels + limit * _gradient(network, pixels, labels).sign()).clamp(0, 1)


def pgd(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    limit: float,
    steps: int,
    samples: np.ndarray | None = None,
) -> Tensor:
    """Steps of 2.5 * limit / steps, each brought back within the limit.

    The start is drawn for each image by its number in the split; without `samples` it is the image itself.
    """
    seen = pixels
    if samples is not None:
        noise = uniforms(key(PURPOSE, _PGD), samples, pixels[0].numel()).reshape(pixels.shape)
        seen = (pixels + limit * (2 * torch.from_numpy(noise).to(pixels) - 1)).clamp(0, 1)
    for _ in range(steps):
        seen = seen + 2.5 * limit / steps * _gradient(network, seen, labels).sign()
        seen = torch.minimum(torch.maximum(seen, pixels - limit), pixels + limit).clamp(0, 1)
    return seen


@torch.enable_grad()
def salience(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """How much each pixel moves the logit of the image's class, by its strongest channel: (B, H, W)."""
    given = pixels.detach().requires_grad_()
    chosen = logits(network, given).gather(1, labels[:, None]).sum()
    return torch.autograd.grad(chosen, given)[0].abs().amax(dim=1)


def patch_places(samples: np.ndarray, size: int, side: int, step: int | None = None) -> np.ndarray:
    """The upper left corner of each image's patch: int64 (B, 2); in training others in each step."""
    drawn_by = key(PURPOSE, _PLACES, side) if step is None else key(PURPOSE, _TRAIN_PLACES, side, step)
    return np.floor(uniforms(drawn_by, samples, 2) * (size - side + 1)).astype(np.int64)


def patched(pixels: Tensor, patch: Tensor, places: np.ndarray) -> Tensor:
    """The images with the patch (3, side, side) at their places (B, 2)."""
    side, corners = patch.shape[1], torch.from_numpy(places).to(pixels.device)
    along = torch.arange(side, device=pixels.device)
    rows, columns = corners[:, :1] + along, corners[:, 1:] + along
    every, covered = torch.arange(len(pixels), device=pixels.device)[:, None, None], pixels.clone()
    covered[every, :, rows[:, :, None], columns[:, None, :]] = patch.permute(1, 2, 0)
    return covered


@torch.enable_grad()
def train_patch(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, np.ndarray]], size: int, side: int
) -> Tensor:
    """A patch that raises the loss on training images wherever it lies, by one step of Adam for each of the batches of
    pixels, labels and sample numbers: (3, side, side).
    """
    first = uniforms(key(PURPOSE, _TRAIN_PLACES, side), np.arange(1), 3 * side * side).reshape(3, side, side)
    device = next(network.parameters()).device
    patch = torch.from_numpy(first).float().to(device).requires_grad_()
    optimizer = torch.optim.Adam([patch], lr=PATCH_RATE)
    for step, (pixels, labels, samples) in enumerate(batches):
        covered = patched(pixels, patch, patch_places(samples, size, side, step))
        loss = -F.cross_entropy(logits(network, covered).float(), labels)
        patch.grad = torch.autograd.grad(loss, patch)[0]
        optimizer.step()
        patch.data.clamp_(0, 1)
    return patch.detach()


def training_rows(rows: np.ndarray, images: int, step: int) -> np.ndarray:
    """The training images of a step of `train_patch`, ascending, the same for every network."""
    order = np.argsort(draws(key(PURPOSE, _TRAIN_PLACES, 0, step), rows, 1)[:, 0], kind="stable")
    return np.sort(rows[order[:images]])
