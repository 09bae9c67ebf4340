"""Our own plain weights file: names and values as safetensors, and the network's config as words beside them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from vitexp.nn.vit import ViTConfig
from vitexp.nn.weights_read import OWN_KEY
from vitexp.record import write_atomically


def save_own(model: nn.Module, path: str | Path) -> None:
    """Writes every network of ours, whole or not at all."""
    write_atomically(path, own_bytes(model))


def own_bytes(model: nn.Module) -> bytes:
    """The content of the file."""
    tensors = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={OWN_KEY: config_words(model.config)})


def config_words(config: Any) -> str:
    """The network's config as JSON, for a place in a file that other readers pass over."""
    return json.dumps({field.name: getattr(config, field.name) for field in fields(ViTConfig)})
