"""A network of timm's by name, with the two methods that ours have, for images in [-1, 1] as ours.

Nothing is fetched unless asked for: weights come from a folder, from the cache on this machine, or are random.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
import huggingface_hub
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from timm.layers import GELU, GELUTanh, SwiGLU
from timm.models._hub import check_cached_file, download_cached_file
from torch import nn

LOCAL, HUB = "local-dir:", "hf-hub:"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class TimmNetwork(nn.Module):
    """timm's network behind `features(images)` and `forward(images)`; its own mean and spread of colours are inside."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        published: Any = model.pretrained_cfg
        mean, std = (torch.tensor(published.get(key) or (0.5, 0.5, 0.5)).view(3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("scale", 0.5 / std, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / std, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """What the head reads. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, D)."""
        model: Any = self.model
        return model.forward_head(model.forward_features(images * self.scale + self.shift), pre_logits=True)

    def forward(self, images: Tensor) -> Tensor:
        """Logits. Shapes: (B, 3, rows, columns) in [-1, 1] -> (B, classes)."""
        return self.model(images * self.scale + self.shift)


def open_timm(name: str, image_size: int | None, *, random: bool, download: bool) -> tuple[TimmNetwork, int]:
    """timm's network and the image size it is built for.

    Raises: ValueError for a name that timm does not know, for weights that are not on this machine, and for a size
    that the network cannot take.
    """
    _check_name(name, download)
    overlay: dict[str, Any] = {}
    if not (random or download or name.startswith(LOCAL)):
        file = weights_file(name, download=False)
        overlay = {"file": str(file), "custom_load": file.suffix == ".npz"}
    try:
        published: Any = {} if image_size else timm.create_model(name).pretrained_cfg
        size = image_size or int((published.get("input_size") or (3, 224, 224))[-1])
        model = timm.create_model(name, pretrained=not random, pretrained_cfg_overlay=overlay, **_sized(name, size))
    except (RuntimeError, TypeError, AssertionError, OSError, ValueError) as error:
        raise ValueError(f"timm cannot build {name} for images of {image_size or 'its own'} size: {error}") from error
    return TimmNetwork(model), size


def facts_of(name: str, beside: Mapping[str, Any]) -> dict[str, Any]:
    """What timm knows of a network and its weights do not say, in the words of Hugging Face's config.json.

    `beside` is what lies beside weights from a folder or the hub, whose architecture is then asked for.
    Raises: ValueError for a network that averages its patches and has a class token.
    """
    if name.startswith((LOCAL, HUB)):
        name, changed = str(beside.get("architecture", "")), beside.get("model_args")
        return dict(beside) if changed or not timm.is_model(name) else facts_of(name, {}) | dict(beside)
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    facts: dict[str, Any] = {"pretrained_cfg": {key: model.pretrained_cfg.get(key) for key in ("mean", "std")}}
    try:
        block = model.blocks[0]
        heads, gated = block.attn.num_heads, isinstance(block.mlp, SwiGLU)
        facts |= {"num_attention_heads": heads} | ({} if gated else {"hidden_act": _activation(block.mlp.act)})
    except (AttributeError, IndexError, TypeError):
        return facts  # a ResNet, whose names say all
    if getattr(model, "global_pool", "token") == "avg" and getattr(model, "cls_token", None) is not None:
        raise ValueError(f"timm:{name} averages its patches beside a class token, for which vitexp has no pool")
    return facts


def _activation(act: nn.Module) -> str:
    if isinstance(act, nn.GELU | GELU):
        return "gelu" if getattr(act, "approximate", "none") == "none" else "gelu_tanh"
    return "gelu_tanh" if isinstance(act, GELUTanh) else type(act).__name__


def weights_file(name: str, *, download: bool) -> Path:
    """The file with the weights that timm knows by this name: in a folder, in the cache on this machine, or fetched.

    Raises: ValueError for a name without weights, and for weights that are not there or cannot be fetched.
    """
    if name.startswith(LOCAL):
        path = Path(name.removeprefix(LOCAL)) / _WEIGHTS[0]
        if not path.is_file():
            raise ValueError(f"timm:{name}: {path} is no file; `vitexp export --format timm` writes such a folder")
        return path
    repository, files, url = _source(name)
    for file in files if repository else ():
        found = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    if repository and download:
        fetched = _fetched(name, repository, files[0])
        if name.startswith(HUB):
            _fetched(name, repository, "config.json")  # says what network it is
        return fetched
    if url and (download or check_cached_file(url)):
        return Path(download_cached_file(url))
    raise ValueError(
        f"the weights of timm:{name} are not on this machine ({repository or url}); fetch them with --download, in a "
        "run of `fit` with --run.download true; `fewshot` and `inspect` also take --random"
    )


def _source(name: str) -> tuple[str, tuple[str, ...], str]:
    """The repository on the hub, the files there that may hold the weights, and an address beyond the hub."""
    if name.startswith(HUB):
        return name.removeprefix(HUB), _WEIGHTS, ""
    _check_name(name, download=False)
    published = timm.get_pretrained_cfg(name)
    if published is None or not (published.hf_hub_id or published.url):
        raise ValueError(f"timm has no weights for {name}; name a network that has some, or add --random")
    files = (str(published.hf_hub_filename),) if published.hf_hub_filename else _WEIGHTS
    return str(published.hf_hub_id or ""), files, str(published.url or "")


def _fetched(name: str, repository: str, file: str) -> Path:
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ValueError(f"timm:{name}: {repository} gave no {file} ({' '.join(str(error).split())})") from error


def _check_name(name: str, download: bool) -> None:
    if name.startswith(LOCAL):
        return
    if name.startswith(HUB):
        if not download:
            raise ValueError(f"timm:{name} is read from the hub; add --download to fetch it")
        return
    plain = name.split(".", 1)[0]
    if not timm.is_model(plain):
        near = ", ".join(difflib.get_close_matches(plain, timm.list_models(), 3))
        raise ValueError(f"timm has no model {plain!r}" + (f"; did you mean {near}" if near else ""))
    known = timm.list_pretrained(f"{plain}.*")
    if plain != name and name not in known:
        raise ValueError(f"timm knows no weights {name!r}; it has {', '.join(known) or 'none for ' + plain}")


def _sized(name: str, size: int) -> dict[str, Any]:
    """The argument that sets the image size, for networks that are built for one."""
    if name.startswith((LOCAL, HUB)):
        return {"img_size": size}
    published = timm.get_pretrained_cfg(name.split(".", 1)[0])
    return {"img_size": size} if published and published.fixed_input_size and published.input_size[-1] != size else {}
