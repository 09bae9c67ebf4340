"""timm's weights: state dicts of its VisionTransformer and of its hybrids, in and out.

Names and layouts carry over one to one; three numerics do not come with a state dict. timm's default GELU is the exact
one and ours is Google's tanh form; timm's mean pooling norms afterwards unless asked otherwise; its hybrids use other
epsilons. `timm_arguments` says how to build a timm network that computes the same.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vitexp.nn import resnet
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViT
from vitexp.weights.entry import ONE_MORE_AXIS, Entry, Rule, check_expressible, entries_of, is_square, written

# Kernels and scales rewritten so that timm's epsilons make the same function of them as ours do.
# A kernel is standardised at every call, so its length is free, but for the epsilon: it is chosen such that timm's
# sqrt(variance + 1e-8) leaves of it what our own division does. And where timm adds 1e-5 to a variance in GroupNorm
# and the hybrids' trunk adds 1e-6, all maps are sqrt(10) times as large: ReLU, sums and pooling pass that on, and the
# patch embedding takes it back. Only the first norm, which reads pixels, keeps its own epsilon: it matters for images
# without any contrast.

TIMM_STANDARDISE_EPS = 1e-8
TIMM_NORM_EPS = 1e-5

_TRUNK = "patch_embed.backbone."
_KERNEL = re.compile(r"(?:.*\.)?(?:conv\d?|downsample\.conv)\.weight")
_NORM = re.compile(r"(?:.*\.)?(?:norm\d?|downsample\.norm)\.(?:weight|bias)")


def hybrid_for_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A hybrid's state dict in timm's names, for timm's epsilons."""
    larger = math.sqrt(TIMM_NORM_EPS / resnet.NORM_EPS["postact"])
    return {name: _in_hybrid(name, value, larger) for name, value in state.items()}


def preact_for_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same of a pre-activation ResNet, whose norms have timm's epsilon already."""
    return _kernels(state, lambda kernel: kernel * math.sqrt(TIMM_STANDARDISE_EPS / resnet.STANDARDISE_EPS["preact"]))


def preact_standardised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for a network of plain convolutions: its kernels are those that ours are standardised to."""
    return _kernels(state, lambda kernel: resnet.standardise(kernel, "preact"))


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
    left = std / (std + resnet.STANDARDISE_EPS["postact"])
    lost = resnet.STANDARDISE_EPS["postact"] / (std + resnet.STANDARDISE_EPS["postact"])  # 1 - r, without cancelling
    wanted = left * torch.sqrt(TIMM_STANDARDISE_EPS / (lost * (1 + left)))
    return ((wide - mean) * (wanted / std.clamp_min(torch.finfo(torch.float64).tiny))).to(kernel.dtype)


def _kernels(state: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: change(value) if _KERNEL.fullmatch(name) else value for name, value in state.items()}


EXPRESSIBLE = {
    "pos_embed": ("1d", "none"),
    "pos_at": ("stem",),
    "pool": ("cls", "gap", "map"),
    "stem": ("patch", "resnet50", "resnet26", "resnet14", "root"),
    "head": ("linear",),
    "gelu": ("tanh", "exact"),
}
MARKER = "patch_embed.proj.weight"
_ACTIVATIONS = {"tanh": "gelu_tanh", "exact": "gelu"}
_POOLS = {"cls": "token", "gap": "avg", "map": "map"}

_KIND = r"\.(weight|bias)"
_UNIT = r"stem\.trunk\.stages\.(\d+)\.(\d+)\."
_BLOCK = "patch_embed.backbone.stages.{0}.blocks.{1}."
_RULES = [
    Rule(rf"stem\.embedding{_KIND}", ("patch_embed.proj.{0}",)),
    Rule(r"pool\.cls", ("cls_token",)),
    Rule(r"position\.tables\.0", ("pos_embed",), ONE_MORE_AXIS),
    Rule(rf"blocks\.(\d+)\.attention\.qkv{_KIND}", ("blocks.{0}.attn.qkv.{1}",)),
    Rule(rf"blocks\.(\d+)\.attention\.out{_KIND}", ("blocks.{0}.attn.proj.{1}",)),
    Rule(rf"(blocks\.\d+\.(?:norm1|norm2|mlp\.fc1|mlp\.fc2)|norm|head){_KIND}", ("{0}.{1}",)),
    Rule(r"pool\.probe", ("attn_pool.latent",), ONE_MORE_AXIS),
    Rule(rf"pool\.out{_KIND}", ("attn_pool.proj.{0}",)),
    Rule(rf"pool\.(q|kv|norm|mlp\.fc1|mlp\.fc2){_KIND}", ("attn_pool.{0}.{1}",)),
    Rule(rf"{_UNIT}conv([123])\.weight", (f"{_BLOCK}conv{{2}}.weight",)),
    Rule(rf"{_UNIT}gn([123]){_KIND}", (f"{_BLOCK}norm{{2}}.{{3}}",)),
    Rule(rf"{_UNIT}conv_proj\.weight", (f"{_BLOCK}downsample.conv.weight",)),
    Rule(rf"{_UNIT}gn_proj{_KIND}", (f"{_BLOCK}downsample.norm.{{2}}",)),
]


def timm_entries(model: ViT) -> list[Entry]:
    """Where each parameter lies. Raises: ValueError for a network that timm has no words for."""
    check_expressible(model.config, EXPRESSIBLE, "timm")
    return entries_of(model.state_dict(), _RULES + _root_rules(model))


def timm_state(model: ViT) -> dict[str, Tensor]:
    """A state dict that timm's network loads."""
    return written(model, timm_entries(model))


def timm_arguments(model: ViT) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer with which `timm_state` gives the same logits.

    Raises: ValueError for a hybrid, whose stem is not an argument but a module.
    """
    check_expressible(model.config, EXPRESSIBLE | {"stem": ("patch",)}, "timm VisionTransformer")
    return encoder_arguments(model)


def encoder_arguments(model: ViT) -> dict[str, Any]:
    """The same for what comes after any stem."""
    config, layout = model.config, model.layout
    arch = parse_arch(config.arch, config.stem)
    return {
        "img_size": config.image_size,
        "patch_size": arch.feature_patch,
        "num_classes": config.classes,
        "embed_dim": arch.width,
        "depth": arch.depth,
        "num_heads": arch.heads,
        "mlp_ratio": arch.mlp_width / arch.width,
        "class_token": layout.prefix == 1,
        "global_pool": _POOLS[config.pool],
        "pos_embed": "learn" if config.pos_embed == "1d" else "none",
        "fc_norm": False,
        "act_layer": _ACTIVATIONS[config.gelu],
    }


def with_row_for_cls(stored: dict[str, Tensor], model: ViT) -> dict[str, Tensor]:
    """Some of timm's networks have no position for the cls token: the same as a row of zeros."""
    table = stored.get("pos_embed")
    if table is None or "cls_token" not in stored or table.ndim != 3:
        return stored
    if table.shape[1] == model.layout.tokens or not is_square(table.shape[1]):
        return stored
    return stored | {"pos_embed": torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)}


def _root_rules(model: ViT) -> list[Rule]:
    """A stem of the root alone is the backbone itself; otherwise the root is the backbone's stem."""
    root = "patch_embed.backbone." + ("" if model.config.stem == "root" else "stem.")
    return [
        Rule(r"stem\.trunk\.conv_root\.weight", (f"{root}conv.weight",)),
        Rule(rf"stem\.trunk\.gn_root{_KIND}", (f"{root}norm.{{0}}",)),
    ]
