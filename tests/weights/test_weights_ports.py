"""Hugging Face's and torchvision's names against timm, renamed here by hand; the two libraries are not needed."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from vitexp.nn.vit import ViT
from vitexp.weights.config import config_of
from vitexp.weights.read import read_weights

PLAIN_HF = {
    "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm",
    "attn.proj": "attention.output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
}  # fmt: skip
PLAIN_TORCHVISION = {
    "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj",
    "norm": "encoder.ln", "head": "heads.head", "attn.proj": "self_attention.out_proj", "norm1": "ln_1",
    "norm2": "ln_2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3",
}  # fmt: skip


def in_hf(state, prefix="vit."):
    renamed = {}
    for name, value in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block and block[2] == "attn.qkv":
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{prefix}encoder.layer.{block[1]}.attention.attention.{part}.{block[3]}"] = third.clone()
        elif block:
            renamed[f"{prefix}encoder.layer.{block[1]}.{PLAIN_HF[block[2]]}.{block[3]}"] = value
        elif name.startswith("head."):
            renamed[f"{prefix.removesuffix('vit.')}classifier.{name[5:]}"] = value
        else:
            stem, dot, kind = (name, "", "") if name in PLAIN_HF else name.rpartition(".")
            renamed[f"{prefix}{PLAIN_HF[stem]}{dot}{kind}"] = value
    return renamed


def in_torchvision(state, mlp=("mlp.0", "mlp.3")):
    renamed, words = {}, PLAIN_TORCHVISION | dict(zip(("mlp.fc1", "mlp.fc2"), mlp, strict=True))
    for name, value in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        at = f"encoder.layers.encoder_layer_{block[1]}." if block else ""
        if block and block[2] == "attn.qkv":
            renamed[f"{at}self_attention.in_proj_{block[3]}"] = value
        elif block:
            renamed[f"{at}{words[block[2]]}.{block[3]}"] = value
        else:
            stem, dot, kind = (name, "", "") if name in words else name.rpartition(".")
            renamed[f"{words[stem]}{dot}{kind}"] = value
    return renamed


FORMS = {
    "hf": in_hf,
    "hf without vit": lambda state: in_hf(state, ""),
    "hf in a wrapper": lambda state: in_hf(state, "model.vit."),
    "hf masked": lambda state: in_hf(state) | {"vit.embeddings.mask_token": torch.ones(1, 1, 16)},
    "torchvision": in_torchvision,
    "torchvision as published": lambda state: in_torchvision(state, ("mlp.linear_1", "mlp.linear_2")),
}


@pytest.mark.parametrize("kind", FORMS)
def test_the_logits_are_timms(tmp_path, wild, kind):
    theirs, path = wild.oracle(), tmp_path / "weights"
    save_file(FORMS[kind](theirs.state_dict()), path)
    wild.assert_same_logits(path, theirs)
    held = config_of(read_weights(path), "file", stated={"arch": wild.config.arch})
    assert held == ViT(wild.config).config


@pytest.mark.parametrize("kind", ["hf", "torchvision"])
def test_what_is_missing_and_what_is_left_over_is_named(tmp_path, wild, kind):
    state = FORMS[kind](wild.oracle().state_dict())
    gone = next(name for name in state if name.endswith(("output.dense.bias", "out_proj.bias")))
    del state[gone]
    at = "vit." if kind == "hf" else ""
    save_file(state | {f"{at}extra.weight": torch.ones(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match=rf"missing {re.escape(gone.removeprefix(at))}; unexpected extra\.weight"):
        wild.filled(tmp_path / "weights")


def test_the_pooler_of_an_encoder_is_the_hidden_layer_of_the_head(tmp_path, wild):
    state = in_hf({n: v for n, v in wild.oracle().state_dict().items() if not n.startswith("head.")}, "")
    pooler = {"pooler.dense.weight": torch.randn(16, 16), "pooler.dense.bias": torch.randn(16)}
    save_file(state | pooler, tmp_path / "weights")
    assert config_of(read_weights(tmp_path / "weights"), "file", stated={"arch": wild.config.arch}).head == "tanh"
    assert not wild.filled(tmp_path / "weights", new_head=True).head.weight.any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"hidden_act": "gelu_new"}, "holds a network of gelu tanh, and this one has gelu exact"),
        ({"hidden_act": "quick_gelu"}, "activation quick_gelu, by its config.json"),
        ({"architecture": "vit_x", "model_args": {"act_layer": "gelu_tanh"}}, "gelu tanh, and this one has gelu exact"),
        ([1], "config.json, which says what network model.safetensors holds, cannot be read"),
    ],
)
def test_the_config_beside_a_file_is_believed(tmp_path, wild, words, said):
    save_file(in_hf(wild.oracle().state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(words))
    with pytest.raises(ValueError, match=said):
        wild.filled(tmp_path / "model.safetensors")


def test_heads_and_normalisation_beside_a_file_are_taken(tmp_path, wild):
    theirs = wild.oracle()
    save_file(in_hf(theirs.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_act": "gelu", "num_attention_heads": 2}))
    assert config_of(read_weights(tmp_path / "model.safetensors"), "file").arch == "w16d2m32h2/4"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    seen = ((wild.images + 1) / 2 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        ours = wild.filled(tmp_path / "model.safetensors")(wild.images)
        torch.testing.assert_close(ours, theirs(seen), rtol=0, atol=1e-5)
