"""The names of other ports: Hugging Face transformers' ViT and torchvision's VisionTransformer.

Source: the two libraries' published weights.
"""

import torch

from vitexp.nn.vit import ViT
from vitexp.weights.entry import ONE_MORE_AXIS, Codec, Entry, Rule, check_expressible, entries_of

HF_MARKER = "embeddings.patch_embeddings.projection.weight"
TORCHVISION_MARKER = "encoder.layers.encoder_layer_0.ln_1.weight"
_EXPRESSIBLE = {
    "pos_embed": ("1d",),
    "pos_at": ("stem",),
    "pool": ("cls",),
    "stem": ("patch",),
    "head": ("linear", "tanh"),
    "gelu": ("tanh", "exact"),
}
_KIND = r"\.(weight|bias)"
_BLOCK = r"blocks\.(\d+)\."
_THREE = Codec(lambda *stored: torch.cat(stored), lambda own: own.chunk(3))

_HF = "encoder.layer.{0}."
_HF_RULES = [
    Rule(rf"stem\.embedding{_KIND}", ("embeddings.patch_embeddings.projection.{0}",)),
    Rule(r"pool\.cls", ("embeddings.cls_token",)),
    Rule(r"position\.tables\.0", ("embeddings.position_embeddings",), ONE_MORE_AXIS),
    Rule(
        rf"{_BLOCK}attention\.qkv{_KIND}",
        tuple(f"{_HF}attention.attention.{part}.{{1}}" for part in ("query", "key", "value")),
        _THREE,
    ),
    Rule(rf"{_BLOCK}attention\.out{_KIND}", (f"{_HF}attention.output.dense.{{1}}",)),
    Rule(rf"{_BLOCK}norm1{_KIND}", (f"{_HF}layernorm_before.{{1}}",)),
    Rule(rf"{_BLOCK}norm2{_KIND}", (f"{_HF}layernorm_after.{{1}}",)),
    Rule(rf"{_BLOCK}mlp\.fc1{_KIND}", (f"{_HF}intermediate.dense.{{1}}",)),
    Rule(rf"{_BLOCK}mlp\.fc2{_KIND}", (f"{_HF}output.dense.{{1}}",)),
    Rule(rf"norm{_KIND}", ("layernorm.{0}",)),
    Rule(rf"pre_logits{_KIND}", ("pooler.dense.{0}",)),
    Rule(rf"head{_KIND}", ("classifier.{0}",)),
]

_TORCHVISION = "encoder.layers.encoder_layer_{0}."
_TORCHVISION_RULES = [
    Rule(rf"stem\.embedding{_KIND}", ("conv_proj.{0}",)),
    Rule(r"pool\.cls", ("class_token",)),
    Rule(r"position\.tables\.0", ("encoder.pos_embedding",), ONE_MORE_AXIS),
    Rule(rf"{_BLOCK}attention\.qkv{_KIND}", (f"{_TORCHVISION}self_attention.in_proj_{{1}}",)),
    Rule(rf"{_BLOCK}attention\.out{_KIND}", (f"{_TORCHVISION}self_attention.out_proj.{{1}}",)),
    Rule(rf"{_BLOCK}norm([12]){_KIND}", (f"{_TORCHVISION}ln_{{1}}.{{2}}",)),
    Rule(rf"{_BLOCK}mlp\.fc1{_KIND}", (f"{_TORCHVISION}mlp.0.{{1}}",)),
    Rule(rf"{_BLOCK}mlp\.fc2{_KIND}", (f"{_TORCHVISION}mlp.3.{{1}}",)),
    Rule(rf"norm{_KIND}", ("encoder.ln.{0}",)),
    Rule(rf"pre_logits{_KIND}", ("heads.pre_logits.{0}",)),
    Rule(rf"head{_KIND}", ("heads.head.{0}",)),
]


def hf_entries(model: ViT) -> list[Entry]:
    """Where each parameter lies. Raises: ValueError for a network that the format has no words for."""
    check_expressible(model.config, _EXPRESSIBLE, "Hugging Face")
    return entries_of(model.state_dict(), _HF_RULES)


def torchvision_entries(model: ViT) -> list[Entry]:
    """The same for torchvision."""
    check_expressible(model.config, _EXPRESSIBLE, "torchvision")
    return entries_of(model.state_dict(), _TORCHVISION_RULES)
