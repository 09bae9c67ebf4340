"""Kernels and scales rewritten so that timm's epsilons make the same function of them as ours do.

A kernel is standardised at every call, so its length is free, but for the epsilon: it is chosen such that timm's
sqrt(variance + 1e-8) leaves of it what our own division does. And where timm adds 1e-5 to a variance in GroupNorm and
the hybrids' trunk adds 1e-6, all maps are sqrt(10) times as large: ReLU, sums and pooling pass that on, and the patch
embedding takes it back. Only the first norm, which reads pixels, keeps its own epsilon: it matters for images without
any contrast.
"""

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vitexp.nn import resnet, resnet_preact

TIMM_STANDARDISE_EPS = 1e-8
TIMM_NORM_EPS = 1e-5

_TRUNK = "patch_embed.backbone."
_KERNEL = re.compile(r"(?:.*\.)?(?:conv\d?|downsample\.conv)\.weight")
_NORM = re.compile(r"(?:.*\.)?(?:norm\d?|downsample\.norm)\.(?:weight|bias)")


def hybrid_for_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A hybrid's state dict in timm's names, for timm's epsilons."""
    larger = math.sqrt(TIMM_NORM_EPS / resnet.NORM_EPS)
    return {name: _in_hybrid(name, value, larger) for name, value in state.items()}


def preact_for_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same of a pre-activation ResNet, whose norms have timm's epsilon already."""
    return _kernels(state, lambda kernel: kernel * math.sqrt(TIMM_STANDARDISE_EPS / resnet_preact.STANDARDISE_EPS))


def preact_standardised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for a network of plain convolutions: its kernels are those that ours are standardised to."""
    return _kernels(state, resnet_preact.standardise)


def _in_hybrid(name: str, value: Tensor, larger: float) -> Tensor:
    if name == "patch_embed.proj.weight":
        return value / larger
    if not name.startswith(_TRUNK):
        return value
    if _KERNEL.fullmatch(name):
        return _rescaled(value)
    return value * larger if _NORM.fullmatch(name) else value


def _rescaled(kernel: Tensor) -> Tensor:
    """Standardised, ours has deviation r = std / (std + eps), and so has timm's with std = sqrt(eps' r² / (1 - r²))."""
    wide = kernel.double()
    std, mean = torch.std_mean(wide, dim=(1, 2, 3), correction=0, keepdim=True)
    left = std / (std + resnet.STANDARDISE_EPS)
    lost = resnet.STANDARDISE_EPS / (std + resnet.STANDARDISE_EPS)  # 1 - r, without cancelling
    wanted = left * torch.sqrt(TIMM_STANDARDISE_EPS / (lost * (1 + left)))
    return ((wide - mean) * (wanted / std.clamp_min(torch.finfo(torch.float64).tiny))).to(kernel.dtype)


def _kernels(state: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: change(value) if _KERNEL.fullmatch(name) else value for name, value in state.items()}
