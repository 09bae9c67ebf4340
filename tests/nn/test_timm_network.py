"""What timm knows of its networks beyond their weights; built on no device, so that nothing is drawn or fetched."""

import pytest

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip

from vitexp.weights.timm_hub import facts_of

IMAGENET = (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "heads", "act", "mean"),
    [
        ("vit_tiny_patch16_224", 3, "gelu", (0.5, 0.5, 0.5)),
        ("deit_tiny_patch16_224", 3, "gelu", IMAGENET),
        ("vit_base_patch32_clip_quickgelu_224", 12, "QuickGELU", None),
        ("resnetv2_50x1_bit", None, None, (0.5, 0.5, 0.5)),
    ],
)
def test_heads_activation_and_colours_are_known(name, heads, act, mean):
    facts = facts_of(name, {})
    assert (facts.get("num_attention_heads"), facts.get("hidden_act")) == (heads, act)
    assert mean is None or facts["pretrained_cfg"]["mean"] == mean


def test_what_lies_beside_weights_of_the_hub_is_asked_first():
    beside = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"mean": IMAGENET}}
    facts = facts_of("hf-hub:someone/else", beside)
    assert (facts["num_attention_heads"], facts["pretrained_cfg"]["mean"]) == (3, IMAGENET)
    changed = beside | {"model_args": {"num_heads": 4}}
    assert facts_of("hf-hub:someone/else", changed) == changed


def test_a_mean_beside_a_class_token_is_refused(monkeypatch):
    build = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name: build(name, global_pool="avg", fc_norm=False))
    with pytest.raises(ValueError, match="timm:vit_tiny_patch16_224 averages its patches beside a class token"):
        facts_of("vit_tiny_patch16_224", {})
