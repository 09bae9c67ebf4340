"""timm's hub form of a network: a folder with `model.safetensors` and `config.json`, from which timm builds it itself.

timm.create_model("local-dir:FOLDER", pretrained=True)
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from vitexp.nn.arch import parse_arch
from vitexp.nn.resnet_network import ResNet
from vitexp.nn.vit import ViT
from vitexp.nn.weights_entry import check_expressible, written
from vitexp.nn.weights_own import config_words
from vitexp.nn.weights_read import OWN_KEY
from vitexp.nn.weights_resnet import timm_entries
from vitexp.nn.weights_timm import EXPRESSIBLE, encoder_arguments, timm_state
from vitexp.nn.weights_timm_epsilons import hybrid_for_timm, preact_for_timm, preact_standardised


class Build(NamedTuple):
    """How timm builds a network: its function, the function's arguments, and the weights by timm's names."""

    function: str
    arguments: dict[str, Any]
    state: Mapping[str, Tensor]
    features: int
    first: str
    classifier: str


# Any of timm's functions of its VisionTransformer will do: every size is an argument. A hybrid's trunk is not, nor are
# the layers of a BiT network, whose second number is the factor on its channels.
_VIT = "vit_base_patch16_224"
_HYBRIDS: dict[tuple[int, ...], str] = {
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
_HALVES = [0.5, 0.5, 0.5]


def hub_files(model: ViT | ResNet) -> dict[str, bytes]:
    """The content of the folder's files by name. Raises: ValueError for a network that timm has no words for."""
    build = _resnet(model) if isinstance(model, ResNet) else _vit(model)
    state = {name: value.contiguous().cpu() for name, value in build.state.items()}
    return {
        "model.safetensors": safetensors.torch.save(
            state, metadata={"format": "pt", OWN_KEY: config_words(model.config)}
        ),
        "config.json": (json.dumps(_config(model, build), indent=2) + "\n").encode(),
    }


def _vit(model: ViT) -> Build:
    arch = parse_arch(model.config.arch, model.config.stem)
    check_expressible(model.config, EXPRESSIBLE, "timm")
    arguments = encoder_arguments(model)
    if arch.resnet_blocks is None:
        return Build(_VIT, arguments, timm_state(model), arch.width, "patch_embed.proj", "head")
    if arch.resnet_blocks not in _HYBRIDS:
        raise ValueError(f"timm has no hybrid with the ResNet of {arch.full_name}, {arch.resnet_blocks} units a stage")
    state = hybrid_for_timm(timm_state(model))
    first = f"patch_embed.backbone.{'stem.' if arch.resnet_blocks else ''}conv"
    return Build(_HYBRIDS[arch.resnet_blocks], arguments, state, arch.width, first, "head")


def _resnet(model: ResNet) -> Build:
    """BiT's own function of timm's where there is one for these layers; elsewhere one whose convolutions are plain.

    Raises: ValueError also for units after activation, which timm builds in its hybrids alone.
    """
    if model.config.resnet != "preact":
        raise ValueError(
            f"timm weights cannot express resnet {model.config.resnet}, only preact: timm builds the other order, with "
            'padding "SAME", in its hybrids alone'
        )
    state = written(model, timm_entries(model))
    blocks = parse_arch(model.config.arch).resnet_blocks
    assert blocks is not None, "a ResNet has units"
    function, factor = _BITS.get(blocks, (_PLAIN, 1))
    channels = [model.trunk.channels // 2**stage // factor for stage in reversed(range(len(blocks)))]
    arguments: dict[str, Any] = {
        "num_classes": model.config.classes,
        "channels": channels,
        "stem_chs": channels[0] // 4,
    }
    if function == _PLAIN:
        arguments |= {"layers": list(blocks), "norm_layer": "groupnorm", "stem_type": "fixed"}
    state = preact_standardised(state) if function == _PLAIN else preact_for_timm(state)
    return Build(function, arguments, state, model.trunk.channels, "stem.conv", "head.fc")


def _config(model: ViT | ResNet, build: Build) -> dict[str, Any]:
    size = model.config.image_size
    rows, columns = (size, size) if isinstance(size, int) else size
    return {
        "architecture": build.function,
        "num_classes": model.config.classes,
        "num_features": build.features,
        "pretrained_cfg": {
            "num_classes": model.config.classes,
            "input_size": [3, rows, columns],
            "fixed_input_size": isinstance(model, ViT),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": _HALVES,
            "std": _HALVES,
            "first_conv": build.first,
            "classifier": build.classifier,
        },
        "model_args": {name: value for name, value in build.arguments.items() if name != "num_classes"},
    }
