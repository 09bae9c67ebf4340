"""The later choices inside a block against timm's network with the same weights."""

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.layers import RmsNorm, SwiGLU  # isort: skip
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer

from vitexp.nn.mlp import swiglu_width
from vitexp.nn.vit import ViT, ViTConfig

SIZE = (8, 12)
IMAGES = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def network(**choices: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTConfig(**{"arch": "micro/2", "image_size": SIZE, "classes": 10, **choices}))


def theirs(**options: Any) -> VisionTransformer:
    """timm's, with every parameter far from its initial value."""
    torch.manual_seed(0)
    cls = options.get("class_token", True)
    options = {"act_layer": "gelu_tanh", "global_pool": "token" if cls else "avg", "fc_norm": False} | options
    model = VisionTransformer(
        img_size=SIZE, patch_size=2, embed_dim=64, depth=4, num_heads=4, num_classes=10, **options
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


RENAMED = {
    "patch_embed.proj": "stem.embedding",
    "cls_token": "pool.cls",
    "reg_token": "registers.tokens",
    "pos_embed": "position.tables.0",
    ".attn.proj": ".attention.out",
    ".attn.": ".attention.",
    "in_norm": "norm1",
    ".ls1.": ".scale1.",
    ".ls2.": ".scale2.",
    ".ls.": ".scale1.",
    "fc1_g": "gate",
    "fc1_x": "up",
    "attn_out_proj": "attention.out",
    "mlp_out_proj": "mlp.fc2",
}


def ours_from(state: dict[str, Tensor], prefix: int = 1) -> dict[str, Tensor]:
    """timm's values by our names, by hand."""
    found = {}
    for name, value in state.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        if name == "position.tables.0":
            without = value.shape[1] == 24 and prefix
            value = torch.cat([torch.zeros(prefix * bool(without), 64), value[0]])
        if "in_proj" in name:
            found[name.replace("in_proj", "mlp.fc1")] = value[:256]
            name, value = name.replace("in_proj", "attention.qkv"), value[256:]
        if re.fullmatch(r"blocks\.\d\.[qk]_norm\.\w+", name):  # of a parallel block
            name = re.sub(r"(\d)\.([qk]_norm)", r"\1.attention.\2", name)
        found[name] = value
    return found


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rms": ({"norm": "rms"}, {"norm_layer": partial(RmsNorm, eps=1e-6)}),
    "swiglu": (
        {"mlp": "swiglu"},
        {"mlp_layer": SwiGLU, "act_layer": torch.nn.SiLU, "mlp_ratio": swiglu_width(256) / 64},
    ),
    "registers": ({"registers": 3}, {"reg_tokens": 3, "no_embed_class": True}),
    "registers without a class token": (
        {"registers": 3, "pool": "gap"},
        {"reg_tokens": 3, "class_token": False, "no_embed_class": True},
    ),
    "qk_norm": ({"qk_norm": True}, {"qk_norm": True}),
    "qk_norm, rms": ({"qk_norm": True, "norm": "rms"}, {"qk_norm": True, "norm_layer": partial(RmsNorm, eps=1e-6)}),
    "layer_scale": ({"layer_scale": 0.1}, {"init_values": 0.1}),
    "drop_path": ({"drop_path": 0.4}, {"drop_path_rate": 0.4}),
    "patch_dropout": ({"patch_dropout": 0.3}, {"patch_drop_rate": 0.3}),
    "patch_dropout beside registers": (
        {"patch_dropout": 0.3, "registers": 2},
        {"patch_drop_rate": 0.3, "reg_tokens": 2, "no_embed_class": True},
    ),
    "parallel": ({"block": "parallel"}, {"block_fn": ParallelScalingBlock}),
    "parallel with all": (
        {"block": "parallel", "layer_scale": 0.1, "drop_path": 0.4, "qk_norm": True},
        {"block_fn": ParallelScalingBlock, "init_values": 0.1, "drop_path_rate": 0.4, "qk_norm": True},
    ),
    "attention pooling": (
        {"registers": 2, "norm": "rms", "pool": "map"},
        {"reg_tokens": 2, "no_embed_class": True, "class_token": False, "global_pool": "map",
         "norm_layer": partial(RmsNorm, eps=1e-6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", SAME)
@torch.no_grad()
def test_same_weights_same_logits_as_timm(kind: str, training: bool) -> None:
    """In training too: the draws of both follow torch's seed in the same order."""
    choices, options = SAME[kind]
    other, mine = theirs(**options).train(training), network(**choices).train(training)
    state = ours_from(other.state_dict(), mine.pool.prefix)
    if kind == "attention pooling":
        state = {name.replace("attn_pool.", "pool.").replace("pool.proj", "pool.out"): v for name, v in state.items()}
        state["pool.probe"] = state.pop("pool.latent")[0]
    mine.load_state_dict(state)
    torch.manual_seed(5)
    found = mine(IMAGES)
    torch.manual_seed(5)
    torch.testing.assert_close(found, other(IMAGES), rtol=0, atol=1e-5)
