"""Networks in timm's own form: state dicts, the arguments that make timm compute the same, and folders for its hub.

Names and layouts carry over one to one; three numerics do not come with a state dict. timm's default GELU is the exact
one and ours is Google's tanh form; timm's mean pooling norms afterwards unless asked otherwise; its hybrids and ResNets
use other epsilons. `timm_arguments` says how to build a timm network that computes the same.
"""

import json
import math
import re
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vitexp.nn import resnet
from vitexp.nn.arch import parse_arch
from vitexp.nn.config import pair
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.weights.names import FORMS, check_expressible, written
from vitexp.weights.read import OWN_KEY, config_words

_ACTIVATIONS = {"tanh": "gelu_tanh", "exact": "gelu"}
_POOLS = {"cls": "token", "gap": "avg", "map": "map"}


def timm_state(model: ViT) -> dict[str, Tensor]:
    """A state dict that timm's network loads. Its position table has rows for registers too, of zeros here."""
    state = written(model, "timm")
    if model.registers is not None and "pos_embed" in state:
        zeros = torch.zeros_like(model.registers.tokens)
        state["pos_embed"] = model.registers.around(zeros, state["pos_embed"], 1)
    return state


def timm_arguments(model: ViT) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer with which `timm_state` gives the same logits.

    Raises: ValueError for a hybrid, whose stem is not an argument but a module.
    """
    check_expressible(model.config, {**FORMS["timm"].allowed, "stem": ("patch",)}, "timm VisionTransformer")
    return encoder_arguments(model)


def encoder_arguments(model: ViT) -> dict[str, Any]:
    """The same for what comes after any stem."""
    config, arch = model.config, parse_arch(model.config.arch, model.config.stem)
    if config.mlp != "gelu":
        raise ValueError(f"timm has no word for mlp {config.mlp}, only a class of its own: export as .safetensors")
    later = {
        "reg_tokens": config.registers,
        "qk_norm": config.qk_norm,
        "init_values": config.layer_scale,
        "norm_layer": "rmsnorm" if config.norm == "rms" else None,
    }
    return {
        "img_size": config.image_size,
        "patch_size": arch.feature_patch,
        "num_classes": config.classes,
        "embed_dim": arch.width,
        "depth": arch.depth,
        "num_heads": arch.heads,
        "mlp_ratio": arch.mlp_width / arch.width,
        "class_token": model.pool.prefix == 1,
        "global_pool": _POOLS[config.pool],
        "pos_embed": "learn" if config.pos_embed == "1d" else "none",
        "fc_norm": False,
        "act_layer": _ACTIVATIONS[config.gelu],
    } | {name: value for name, value in later.items() if value}


# Kernels and scales rewritten so that timm's epsilons make the same function of them as ours do.
# A kernel is standardised at every call, so its length is free, but for the epsilon: it is chosen such that timm's
# sqrt(variance + 1e-8) leaves of it what our own division does. And where timm adds 1e-5 to a variance in GroupNorm
# and the hybrids' trunk adds 1e-6, all maps are sqrt(10) times as large: ReLU, sums and pooling pass that on, and the
# patch embedding takes it back. Only the first norm, which reads pixels, keeps its own epsilon: it matters for images
# without any contrast.

STANDARDISE_EPS = 1e-8
NORM_EPS = 1e-5

_KERNEL = re.compile(r".*\bconv\d?\.weight")


def _hybrid_for_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    larger = math.sqrt(NORM_EPS / resnet.NORM_EPS["postact"])
    fitted = state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"] / larger}
    for name in (name for name in state if name.startswith("patch_embed.backbone.")):
        fitted[name] = _rescaled(state[name]) if _KERNEL.fullmatch(name) else state[name] * larger
    return fitted


def _rescaled(kernel: Tensor) -> Tensor:
    """Standardised, ours has deviation r = std / (std + eps), and so has timm's with std = sqrt(eps' r² / (1 - r²))."""
    wide = kernel.double()
    std, mean = torch.std_mean(wide, dim=(1, 2, 3), correction=0, keepdim=True)
    left = std / (std + resnet.STANDARDISE_EPS["postact"])
    lost = resnet.STANDARDISE_EPS["postact"] / (std + resnet.STANDARDISE_EPS["postact"])  # 1 - r, without cancelling
    wanted = left * torch.sqrt(STANDARDISE_EPS / (lost * (1 + left)))
    return ((wide - mean) * (wanted / std.clamp_min(torch.finfo(torch.float64).tiny))).to(kernel.dtype)


# timm's hub form of a network: a folder with `model.safetensors` and `config.json`, from which timm builds it itself.
# timm.create_model("local-dir:FOLDER", pretrained=True)

Build = tuple[str, dict[str, Any], dict[str, Tensor]]
"""timm's function of a network, the function's arguments, and the weights by timm's names."""

# Any of timm's functions of its VisionTransformer will do: every size is an argument. A hybrid's trunk is not, nor are
# the layers of a BiT network, whose second number is the factor on its channels.
_VITS: dict[tuple[int, ...] | None, str] = {
    None: "vit_base_patch16_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
    (2, 2, 2, 2): "vit_base_r26_s32_224",
    (): "vit_tiny_r_s16_p8_224",
}
_BITS: dict[tuple[int, ...], tuple[str, int]] = {
    (3, 4, 6, 3): ("resnetv2_50x1_bit", 1),
    (3, 4, 23, 3): ("resnetv2_101x1_bit", 1),
    (3, 8, 36, 3): ("resnetv2_152x2_bit", 2),
}
_PLAIN = "resnetv2_50"


def hub_files(model: ViT | ResNet) -> dict[str, bytes]:
    """The content of the folder's files by name. Raises: ValueError for a network that timm has no words for."""
    function, arguments, state = _resnet(model) if isinstance(model, ResNet) else _vit(model)
    state = {name: value.contiguous().cpu() for name, value in state.items()}
    words = {"format": "pt", OWN_KEY: config_words(model.config)}
    config = {
        "architecture": function,
        "num_classes": model.config.classes,
        "num_features": model.head.weight.shape[1],
        "pretrained_cfg": {
            "num_classes": model.config.classes,
            "input_size": [3, *pair(model.config.image_size)],
            "fixed_input_size": isinstance(model, ViT),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "first_conv": next(name[:-7] for name, value in state.items() if value.ndim == 4 and value.shape[1] == 3),
            "classifier": "head.fc" if isinstance(model, ResNet) else "head",
        },
        "model_args": {name: value for name, value in arguments.items() if name != "num_classes"},
    }
    return {
        "model.safetensors": safetensors.torch.save(state, metadata=words),
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }


def _vit(model: ViT) -> Build:
    arch, state = parse_arch(model.config.arch, model.config.stem), timm_state(model)
    if arch.resnet_blocks not in _VITS:
        raise ValueError(f"timm has no hybrid with the ResNet of {arch.full_name}, {arch.resnet_blocks} units a stage")
    fitted = state if arch.resnet_blocks is None else _hybrid_for_timm(state)
    return _VITS[arch.resnet_blocks], encoder_arguments(model), fitted


def _resnet(model: ResNet) -> Build:
    """BiT's own function of timm's where there is one for these layers; elsewhere one whose convolutions are plain."""
    if model.config.resnet != "preact":
        raise ValueError(
            f"timm weights cannot express resnet {model.config.resnet}, only preact: timm builds postact, with "
            'padding "SAME", in its hybrids alone'
        )
    blocks = parse_arch(model.config.arch).resnet_blocks or ()
    function, factor = _BITS.get(blocks, (_PLAIN, 1))
    channels = [model.trunk.channels // 2**stage // factor for stage in reversed(range(len(blocks)))]
    arguments: dict[str, Any] = {"channels": channels, "stem_chs": channels[0] // 4}
    if function == _PLAIN:
        arguments |= {"layers": list(blocks), "norm_layer": "groupnorm", "stem_type": "fixed"}
    # Its norms have timm's epsilon already. Kernels of plain convolutions are those that ours are standardised to.
    state, longer = written(model, "timm resnet"), math.sqrt(STANDARDISE_EPS / resnet.STANDARDISE_EPS["preact"])
    for name in filter(_KERNEL.fullmatch, state):
        state[name] = resnet.standardise(state[name], "preact") if function == _PLAIN else state[name] * longer
    return function, arguments, state
