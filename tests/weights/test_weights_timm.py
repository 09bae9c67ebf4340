from functools import partial

import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip
from timm.layers import HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer

from vitexp.nn.arch import BODIES, HYBRIDS, Hybrid
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.load import load_stored
from vitexp.weights.read import Stored
from vitexp.weights.timm import timm_arguments, timm_state

MICRO = {"arch": "micro/2", "image_size": 8, "classes": 10}
ARMS = [
    MICRO | {"pos_embed": pos_embed, "pool": pool, "image_size": size}
    for pos_embed in ("1d", "none")
    for pool in ("cls", "gap", "map")
    for size in (8, (4, 10))
] + [MICRO | {"pos_embed": "1d", "pool": pool, "gelu": "exact"} for pool in ("cls", "map")]


def randomised(model):
    """Every parameter far from its initial value, so that none can be mixed up or left out unseen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def logits(model, image_size):
    rows, columns = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    images = torch.rand(3, 3, rows, columns, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        return model.eval()(images.to(next(model.parameters()).dtype))


def shapes(state):
    return {name: value.shape for name, value in state.items()}


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: "-".join(map(str, arm.values())))
def test_the_same_weights_give_timms_logits_both_ways(arm):
    model = randomised(ViT(ViTConfig(**arm)))
    oracle = VisionTransformer(**timm_arguments(model))
    oracle.load_state_dict(timm_state(model), strict=True)
    expected = logits(oracle, arm["image_size"])
    torch.testing.assert_close(logits(model, arm["image_size"]), expected, rtol=0, atol=1e-5)
    back = ViT(ViTConfig(**arm))
    load_stored(back, Stored(oracle.state_dict()))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.state_dict().items())


@pytest.mark.parametrize(("arch", "size"), [("R+micro/16", 64), ("R26+micro/8", 32)])
def test_hybrids_carry_over_both_ways_and_differ_by_timms_epsilons_only(arch, size, monkeypatch):
    monkeypatch.setitem(HYBRIDS, "resnet26", Hybrid("R26", {8: (2, 1)}))  # as the real one, but small
    model = ViT(ViTConfig(arch=arch, image_size=size, classes=10)).double()
    oracle = randomised(timm_hybrid(arch, size)).double()
    load_stored(model, Stored(oracle.state_dict()))
    assert 1e-7 < (logits(model, size) - logits(oracle, size)).abs().max() < 1e-2
    for module in oracle.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6
        if isinstance(module, StdConv2dSame):
            module.weight.data.mul_(1e5)  # standardised away, but for the epsilon
    load_stored(model, Stored(oracle.state_dict()))
    torch.testing.assert_close(logits(model, size), logits(oracle, size), rtol=0, atol=1e-7)
    written = timm_state(model)
    assert written.keys() == oracle.state_dict().keys()
    assert all(torch.equal(value, written[key]) for key, value in oracle.state_dict().items())


def timm_hybrid(arch, size):
    body = {"num_classes": 10, "embed_dim": 64, "depth": 4, "num_heads": 4, "act_layer": "gelu_tanh"}
    if arch.startswith("R+"):
        return timm.create_model("vit_tiny_r_s16_p8_224", img_size=size, **body)
    conv = partial(StdConv2dSame, eps=1e-8)
    options = {"num_classes": 0, "global_pool": "", "preact": False, "stem_type": "same", "conv_layer": conv}
    embed = partial(HybridEmbed, backbone=ResNetV2((2, 1), (256, 512), **options))
    return VisionTransformer(size, 1, embed_layer=embed, **body)


def test_a_timm_table_without_a_row_for_cls_gets_zeros_there():
    model = ViT(ViTConfig(**MICRO))
    oracle = randomised(VisionTransformer(**timm_arguments(model), no_embed_class=True))
    load_stored(model, Stored(oracle.state_dict()))
    assert not model.position.tables[0][0].any()
    torch.testing.assert_close(logits(model, 8), logits(oracle, 8), rtol=0, atol=1e-5)


@pytest.mark.parametrize("body", BODIES)
def test_timm_builds_the_mlp_of_every_body(body):
    with torch.device("meta"):
        model = ViT(ViTConfig(arch=f"{body}/16", image_size=32))
        oracle = VisionTransformer(**timm_arguments(model) | {"depth": 1})
    ours = shapes(timm_state(model))
    assert {name: ours[name] for name in oracle.state_dict()} == shapes(oracle.state_dict())


def test_names_and_shapes_are_those_of_timms_own_hybrid():
    with torch.device("meta"):
        model = ViT(ViTConfig(arch="R50+B/16"))
        oracle = timm.create_model("vit_base_r50_s16_224", num_classes=1000)
    assert shapes(timm_state(model)) == shapes(oracle.state_dict())


def test_a_norm_after_pooling_is_not_taken_for_one_before_it():
    model = ViT(ViTConfig(**MICRO | {"pool": "gap"}))
    after = VisionTransformer(**timm_arguments(model) | {"fc_norm": True})
    with pytest.raises(
        ValueError, match=r"a norm after pooling: .* is another function \(fc_norm\.bias\), .* so it was not loaded"
    ):
        load_stored(model, Stored(after.state_dict()))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"pos_embed": "2d"}, "pos_embed 2d"),
        ({"pos_at": "shared"}, "pos_at shared"),
        ({"head": "tanh"}, "head tanh, only linear"),
        ({"pos_embed": "rope"}, "pos_embed rope"),
        ({"pos_embed": "sincos2d"}, "pos_embed sincos2d"),
        ({"attention": "local"}, "attention local, only full"),
    ],
)
def test_what_timm_cannot_express_is_refused_by_name(option, words):
    with pytest.raises(ValueError, match=f"timm weights cannot express {words}"):
        timm_state(ViT(ViTConfig(**MICRO | option)))


def test_a_hybrid_has_no_arguments_in_timm():
    with pytest.raises(ValueError, match="VisionTransformer weights cannot express stem root, only patch"):
        timm_arguments(ViT(ViTConfig(arch="R+micro/16", image_size=64)))
