"""Parts of other programs' networks that ours do not have: refused by name, or taken in where the function is the same.

A scale on what a residual branch adds (LayerScale) is multiplied into that branch's last projection, where the network
has none; projections without bias get a bias of zeros; a mask token is left out, as whole images do not meet it.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitexp.nn.stem import PatchStem
from vitexp.weights.google import in_one_dialect
from vitexp.weights.names import FORMS, PORTS
from vitexp.weights.read import Network

_ANOTHER_POOL = (
    "a norm after pooling: it averages the patches first and norms their mean (timm's global_pool avg), and pool gap "
    "here norms each patch first, which is another function"
)
_REFUSED = {
    r"fc_norm\..*": _ANOTHER_POOL,
    r"dist_token|head_dist\..*|embeddings\.distillation_token|distillation_classifier\..*": "a distillation token, as "
    "distilled DeiTs have",
    r"register_tokens|embeddings\.register_tokens": "register tokens in the names of Hugging Face or of DINOv2's code",
    r"norm_pre\..*": "a norm before the first layer, as CLIP's networks have",
    r".*\.layer_scale\d\.lambda1": "LayerScale in the names of Hugging Face's DINOv2",
    r".*\.(?:attn\.norm|mlp\.norm)\..*": "norms inside attention or MLP",
    r"blocks\.\d+\.(?:in_proj|in_norm|attns|ffns)\..*": "parallel blocks in timm's fused form",
    r".*relative_position.*": "relative position biases",
    r".*\.(?:w12|w3|weights_in)\..*|.*\.(?:w12|w3)": "a gated MLP in one matrix",
    r"decoder_\w+(?:\..*)?": "the decoder of a masked autoencoder",
}
_LAYER_SCALE = re.compile(r"(blocks\.\d+\.)(?:ls([12])\.gamma|gamma_([12]))")
_SCALED = {"1": "attn.proj", "2": "mlp.fc2"}
_PROJECTION = re.compile(
    r"(blocks\.\d+\.attn\.qkv|encoder\.layer\.\d+\.attention\.attention\.(?:query|key|value))\.weight"
)
_MASK = ("mask_token", "embeddings.mask_token")


def held_options(network: Network) -> dict[str, Any]:
    """The options that names of timm's show, with their values."""
    tensors = network.tensors if network.form == "timm" else {}
    registers = tensors.get("reg_token")
    bare = "blocks.0.norm1.weight" in tensors and "blocks.0.norm1.bias" not in tensors
    return {
        "registers": 0 if registers is None else registers.shape[-2],
        "norm": "rms" if bare else "layer",
        "mlp": "swiglu" if "blocks.0.mlp.fc1_g.weight" in tensors else "gelu",
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
    }


def check_options(network: Network, config: Any, source: str) -> None:
    """Raises: ValueError that says which options the network to be filled must have, where names of timm's show it."""
    apart = {name: value for name, value in held_options(network).items() if getattr(config, name) != value}
    if network.form == "timm" and apart:
        give = " ".join(f"--model.{name} {str(value).lower()}" for name, value in apart.items())
        has = ", ".join(f"{name} {getattr(config, name)}" for name in apart)
        raise ValueError(
            f"{source} holds other parts than this network, which has {has}: give {give}, or other weights"
        )
    scaled = any(map(_LAYER_SCALE.fullmatch, network.tensors))
    if network.form in PORTS and config.layer_scale and not scaled:
        raise ValueError(f"{source} holds no LayerScale: leave layer_scale {config.layer_scale} out, or use others")


def in_our_parts(network: Network, source: str, *, keep_scale: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    """The same function in parts that ours have and in names of its table, and notes on what was changed for it.

    Raises: ValueError that names the parts for which there is no place.
    """
    stored = network.tensors
    if FORMS[network.form].norms:
        return in_one_dialect(stored), []
    if network.form not in PORTS:
        return stored, []
    found = {
        words: next(filter(re.compile(known).fullmatch, sorted(stored)), None) for known, words in _REFUSED.items()
    }
    if parts := " and ".join(f"{words} ({name})" for words, name in found.items() if name):
        raise ValueError(f"{source} holds {parts}, for which vitexp's networks have no place, so it was not loaded")
    state = {_respelt(name): value for name, value in stored.items() if name not in _MASK}
    notes = [f"left out {name}, which only masked images meet" for name in _MASK if name in stored]
    if keep_scale:  # in DeiT's own names it is gamma_1
        state = {_LAYER_SCALE.sub(r"\1ls\2\3.gamma", name): value for name, value in state.items()}
    notes += ([] if keep_scale else _fold_layer_scale(state)) + _add_biases(state)
    return state, notes


def _respelt(name: str) -> str:
    """torchvision's published files have its earlier names of the MLP."""
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


def _fold_layer_scale(state: dict[str, Tensor]) -> list[str]:
    """gamma (W x + b) is (gamma W) x + gamma b. What does not fit stays, and is refused by its name later."""
    folded = False
    for name in [*state]:
        if not (scale := _LAYER_SCALE.fullmatch(name)):
            continue
        projection, gamma = scale[1] + _SCALED[scale[2] or scale[3]], state[name].double()
        weight, bias = (state.get(f"{projection}.{kind}") for kind in ("weight", "bias"))
        if weight is None or bias is None or weight.ndim != 2 or not gamma.shape == bias.shape == weight.shape[:1]:
            continue
        state[f"{projection}.weight"] = (weight.double() * gamma[:, None]).float()
        state[f"{projection}.bias"] = (bias.double() * gamma).float()
        folded = bool(state.pop(name).numel())
    return ["LayerScale was multiplied into the projections before it"] if folded else []


def _add_biases(state: dict[str, Tensor]) -> list[str]:
    """Zeros where no projection of queries, keys and values has a bias."""
    projections = [found[1] for name in state if (found := _PROJECTION.fullmatch(name)) and state[name].ndim == 2]
    if not projections or any(f"{name}.bias" in state for name in projections):
        return []
    state |= {f"{name}.bias": torch.zeros(len(state[f"{name}.weight"])) for name in projections}
    return ["queries, keys and values have no bias in it, and begin here with one of zeros"]


@torch.no_grad()
def take_in_normalisation(model: Any, beside: Mapping[str, Any], source: str) -> list[str]:
    """Lets a network that learned on other means and deviations of colours see images in [-1, 1] as it saw its own.

    W ((x - mean) / std) + b over whole patches is another W and b. Gives a note on what was done, or is not known.
    Raises: ValueError for a stem with padding, where it is not.
    """
    given = beside.get("pretrained_cfg") or beside
    mean, std = (
        given.get(f"image_{kind}", given.get(kind)) if isinstance(given, Mapping) else None for kind in ("mean", "std")
    )
    if mean is None or std is None:
        return [f"{source} does not say how its images were normalised; here they lie in [-1, 1]"]
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std))
    if (mean == 0.5).all() and (std == 0.5).all():
        return []
    if not isinstance(model.stem, PatchStem):
        raise ValueError(f"{source} learned on other means and deviations, which only a stem of patches can take in")
    weight, bias = model.stem.embedding.weight, model.stem.embedding.bias
    kernel = weight.double()
    bias.copy_(bias.double() + (kernel * ((0.5 - mean) / std)).sum((1, 2, 3)))
    weight.copy_(kernel * (0.5 / std))
    return ["the mean and deviation of its images were taken into the patch embedding, which here sees [-1, 1]"]
