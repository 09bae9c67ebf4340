"""timm's hub form of a network: a folder with `model.safetensors` and `config.json`, from which timm builds it itself.

timm.create_model("local-dir:FOLDER", pretrained=True)
"""

import json
from typing import Any

import safetensors.torch

from vitexp.nn.vit import ViT
from vitexp.nn.weights_timm import timm_arguments, timm_state

# Any of timm's entry points to its VisionTransformer will do: every size is an argument.
_ENTRY_POINT = "vit_base_patch16_224"
_HALVES = [0.5, 0.5, 0.5]


def hub_files(model: ViT) -> dict[str, bytes]:
    """The content of the folder's files by name. Raises: ValueError for a network that timm has no words for."""
    arguments = timm_arguments(model)
    state = {name: value.contiguous().cpu() for name, value in timm_state(model).items()}
    return {
        "model.safetensors": safetensors.torch.save(state, metadata={"format": "pt"}),
        "config.json": (json.dumps(_config(model, arguments), indent=2) + "\n").encode(),
    }


def _config(model: ViT, arguments: dict[str, Any]) -> dict[str, Any]:
    size = model.config.image_size
    rows, columns = (size, size) if isinstance(size, int) else size
    return {
        "architecture": _ENTRY_POINT,
        "num_classes": model.config.classes,
        "num_features": arguments["embed_dim"],
        "pretrained_cfg": {
            "num_classes": model.config.classes,
            "input_size": [3, rows, columns],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": _HALVES,
            "std": _HALVES,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "model_args": {name: value for name, value in arguments.items() if name != "num_classes"},
    }
