"""Parts of your own, for `vitexp fit` from this folder; no line of vitexp changes.

vitexp fit --config ../experiments/pos_ablation.yaml --model.pos_embed my_ideas:Alibi2D
vitexp fit --config ../experiments/pos_ablation.yaml --model.optimizer my_ideas:SignSgd --model.loss my_ideas:Focal
"""

import torch
import torch.nn.functional as F

from vitexp.nn.position import Position


class Alibi2D(Position):
    """A penalty on each attention logit that grows with the distance of two patches, in each head by half as much."""

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
    def step(self, closure):
        """One step; `closure` computes loss and gradients."""
        with torch.enable_grad():
            loss = closure()
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
