"""Parts of your own, for `vitexp fit` from this folder; no line of vitexp changes.

vitexp fit --config ../experiments/pos_ablation.yaml --model.pos_embed my_ideas:Alibi2D
vitexp fit --config ../experiments/pos_ablation.yaml --model.optimizer my_ideas:SignSgd --model.loss my_ideas:Focal
vitexp fit --data.auto_augment my_ideas:Speckle --run.evaluators [my_ideas:Ece] --run.options.Ece.bins 10
vitexp fit --model.pool my_ideas:TopK --model.stem my_ideas:OverlapStem --model.attention my_ideas:Near
vitexp shards make my_ideas:Stripes@images=500 shards/stripes
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from vitexp.nn.attention import Full
from vitexp.nn.pool import Pool
from vitexp.nn.position import Position
from vitexp.nn.stem import Stem


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


class TopK(Pool):
    """The mean of the longest tokens of each image."""

    label = "longest tokens"
    permutation_invariant = True
    adds_parameters = False

    def __init__(self, width, heads, mlp_width, k: int = 4):
        super().__init__(width, heads, mlp_width)
        self.k = k

    def read(self, tokens, norm):
        """Shapes: (B, T, D) -> (B, D)."""
        longest = tokens.norm(dim=-1).topk(min(self.k, tokens.shape[1])).indices
        return norm(tokens.gather(1, longest[..., None].expand(-1, -1, tokens.shape[-1]))).mean(1)


class OverlapStem(Stem):
    """Patches that overlap: one convolution whose kernel is larger than its stride."""

    label = "overlapping patches"

    def __init__(self, arch, image_size, more: int = 2):
        super().__init__(arch, image_size)
        self.kernel = torch.nn.Conv2d(3, arch.width, arch.patch + 2 * more, stride=arch.patch, padding=more)

    def embed(self, images):
        """Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        return self.kernel(images).flatten(2).transpose(1, 2)


class Near(Full):
    """Full attention whose logits fall with the distance of two patches, as fast as each head learns to."""

    label = "soft windows"
    permutation_invariant = False

    def __init__(self, layout, start: float = 1.0):
        super().__init__(layout.width, layout.heads)
        self.fall = torch.nn.Parameter(torch.full((layout.heads, 1, 1), start))
        places = torch.cartesian_prod(*map(torch.arange, layout.grid)).float()
        apart = torch.zeros(layout.tokens, layout.tokens)
        apart[layout.prefix :, layout.prefix :] = torch.cdist(places, places)
        self.register_buffer("apart", apart, persistent=False)

    def mix(self, query, key, value, bias):
        """What each query gathers. Shapes: (B, H, T, K) each, the bias (B, H, T, T) or none -> (B, H, T, K)."""
        near = (-self.fall.abs() * self.apart).to(query.dtype)
        return super().mix(query, key, value, near if bias is None else bias + near)


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


class Cyclic:
    """Cosine decay, begun again a few times. Source: Loshchilov and Hutter 2017."""

    label = "warm restarts"

    def __init__(self, cycles: int = 3):
        self.cycles = cycles

    def __call__(self, step, steps):
        """The share of the peak rate at a step after the warm-up, from 0 to `steps`, the end of the run."""
        done = self.cycles * step / steps % 1
        return 0.5 * (1 + math.cos(math.pi * done))


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


class Stripes:
    """Lying and standing stripes with noise; an image follows from its split and number."""

    classes = ("lying", "standing")

    def __init__(self, images: int = 300, noise: float = 40.0):
        self.counts, self.noise = {"train": images, "test": 100}, noise

    def labels(self, split):
        """The class of each image of "train", "val" or "test"; empty for a split that there is not."""
        return np.arange(self.counts.get(split, 0)) % 2

    def image(self, split, i):
        """The image as pixels, uint8 (H, W) or (H, W, 3), or as the bytes of its file."""
        draw = np.random.default_rng([split == "test", i])
        lines = np.tile(100 + 60 * (np.arange(8) // 2 % 2 == draw.integers(2)), (8, 1))
        noisy = (lines if i % 2 else lines.T) + draw.normal(0, self.noise, (8, 8))
        return noisy.clip(0, 255).astype(np.uint8)
