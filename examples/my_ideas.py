"""Parts of your own, for `vitexp fit` from this folder; no line of vitexp changes.

vitexp fit --config ../experiments/pos_ablation.yaml --model.pos_embed my_ideas:Alibi2D
vitexp fit --config ../experiments/pos_ablation.yaml --model.optimizer my_ideas:SignSgd --model.loss my_ideas:Focal
vitexp fit --data.auto_augment my_ideas:Speckle --run.evaluators [my_ideas:Ece] --run.options.Ece.bins 10
"""

import numpy as np
import torch
import torch.nn.functional as F

from vitexp.nn.position import Position


class Alibi2D(Position):
    """A penalty on each attention logit that grows with the distance of two patches, in each head by half as much.

    As the built-in `alibi`, with a slope to choose.
    """

    label = "2-D ALiBi"
    permutation_invariant = False
    adds_parameters = False

    def __init__(self, layout, at, slope: float = 0.5):
        super().__init__(layout, at)
        rows, columns = map(torch.arange, layout.grid)
        places = torch.cartesian_prod(rows, columns).float()
        penalty = torch.zeros(layout.heads, layout.tokens, layout.tokens)  # none for the class token, which comes first
        slopes = slope * 2.0 ** -torch.arange(layout.heads)
        penalty[:, layout.prefix :, layout.prefix :] = slopes[:, None, None] * torch.cdist(places, places)
        self.register_buffer("penalty", penalty, persistent=False)

    def bias(self, query, layer):
        """Logits to add. Shapes: (B, H, T, K) -> (H, T, T)."""
        return -self.penalty.to(query.dtype)


class SignSgd(torch.optim.Optimizer):
    """The sign of the averaged gradient, times the rate."""

    label = "signSGD"

    def __init__(self, params, lr: float, momentum: float = 0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """One step; `closure` computes loss and gradients."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for weight in (one for one in group["params"] if one.grad is not None):
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                weight -= group["lr"] * mean.lerp_(weight.grad, 1 - group["momentum"]).sign()
        return loss


class Focal:
    """Cross-entropy that counts an image less, the surer its class is. Source: Lin et al. 2017."""

    label = "focal loss"

    def __init__(self, gamma: float = 2.0):
        self.gamma = gamma

    def __call__(self, logits, labels):
        """Shapes: (B, classes), (B,) -> (B,)."""
        losses = F.cross_entropy(logits, labels, reduction="none")
        return (1 - torch.exp(-losses)) ** self.gamma * losses


class Speckle:
    """Some pixels become grey."""

    def __init__(self, share: float = 0.1):
        self.share = share

    def __call__(self, image, generator):
        """Shapes: uint8 (S, S, 3) -> the same; the NumPy generator belongs to seed, epoch and image."""
        hit = generator.random(image.shape[:2]) < self.share
        return np.where(hit[..., None], np.uint8(128), image)


class Ece:
    """Expected calibration error: how far confidence and accuracy are apart, over bins. Source: Guo et al. 2017."""

    label = "calibration error"
    unit, better = "share", "lower"

    def __init__(self, bins: int = 15):
        self.bins = bins

    def measure(self, logits, labels):
        """Shapes: (N, classes), (N,), all test images -> a number, or several by name."""
        sure, found = logits.softmax(-1).max(-1)
        place = (sure * self.bins).ceil().long().clamp(1, self.bins) - 1
        gaps = torch.zeros(self.bins).index_add_(0, place, (found == labels).float() - sure)
        return gaps.abs().sum() / len(labels)
