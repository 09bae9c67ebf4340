"""Networks of timm's definitions with today's parts: the same logits, or a sentence that names the option to set."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip
from timm.layers import RmsNorm, SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer

from vitexp.nn.vit import ViT
from vitexp.weights.config import config_of
from vitexp.weights.load import load_stored
from vitexp.weights.read import Stored
from vitexp.weights.timm import timm_arguments, timm_state
from vitexp.weights.timm_hub import facts_of, open_timm

NAMED = {
    "deit_small_patch16_224": ({"img_size": 32}, {}, {}),
    "deit3_small_patch16_224": ({"img_size": 32}, {}, {"layer_scale": 1e-6}),
    "vit_small_patch14_reg4_dinov2": (
        {"img_size": 28, "num_classes": 3}, {"registers": 4, "layer_scale": 0.0}, {"layer_scale": 1e-5},
    ),
    "vit_base_patch16_224": ({"img_size": 32}, {}, {}),  # AugReg's and MAE's
}  # fmt: skip
"""Arguments of timm's function, what the weights show, and what is to be set beside it."""


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", NAMED)
@torch.no_grad()
def test_a_network_of_timms_by_name_computes_the_same(name, kept, monkeypatch):
    options, shown, beside = NAMED[name]
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, **options).eval()
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    stored = Stored(model.state_dict(), None, facts_of(name, {}), name)
    config = config_of(stored, name)
    assert {option: getattr(config, option) for option in shown} == shown
    ours = ViT(replace(config, **beside) if kept else config).eval()
    notes = load_stored(ours, stored)
    assert ("LayerScale was multiplied into the projections before it" in notes) == (bool(beside) and not kept)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: model)
    theirs, _ = open_timm(name, options["img_size"], random=True, download=False)
    images = torch.rand(2, 3, options["img_size"], options["img_size"]) * 2 - 1
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


PARTS = {
    "registers": ({"registers": 4}, {"reg_tokens": 4, "no_embed_class": True}),
    "registers with positions": ({"registers": 3}, {"reg_tokens": 3}),
    "registers without a class token": (
        {"registers": 4, "pool": "gap"},
        {"reg_tokens": 4, "class_token": False, "global_pool": "avg", "fc_norm": False},
    ),
    "qk_norm": ({"qk_norm": True}, {"qk_norm": True}),
    "norm": ({"norm": "rms"}, {"norm_layer": partial(RmsNorm, eps=1e-6)}),
    "layer_scale": ({"layer_scale": 0.3}, {"init_values": 0.3}),
    "mlp": ({"mlp": "swiglu", "gelu": "tanh"}, {"mlp_layer": SwiGLU, "act_layer": torch.nn.SiLU, "mlp_ratio": 1.5}),
}


@pytest.mark.parametrize("kind", PARTS)
@torch.no_grad()
def test_a_part_is_loaded_and_its_option_is_found(wild, kind):
    options, theirs = PARTS[kind]
    theirs = wild.oracle(**theirs)
    stored = Stored(theirs.state_dict())
    sizes = {"arch": "w16d2m32h2/4"} if kind != "mlp" else {"arch": "w16d2m36h2/4"}
    ours = ViT(replace(wild.config, **options | sizes)).eval()
    load_stored(ours, stored)
    torch.testing.assert_close(ours(wild.images), theirs(wild.images), rtol=0, atol=1e-5)
    found = config_of(stored, "it", stated=sizes)
    wanted = options | ({"layer_scale": 0.0} if kind == "layer_scale" else {})
    assert {option: getattr(found, option) for option in wanted} == wanted
    assert (found.image_size, found.arch) == (8, sizes["arch"])


@pytest.mark.parametrize("kind", ["registers", "qk_norm", "norm", "mlp"])
def test_a_network_without_the_part_is_told_which_option_to_set(wild, kind):
    options, theirs = PARTS[kind]
    value = str(options[kind]).lower()
    stored = Stored(wild.oracle(**theirs).state_dict())
    with pytest.raises(ValueError, match=rf"has {kind} .*: give --model.{kind} {value}, or other weights"):
        load_stored(ViT(wild.config), stored)


def test_a_network_with_a_part_that_the_file_lacks_is_told_too(wild):
    plain = Stored(wild.oracle().state_dict())
    with pytest.raises(
        ValueError, match=r"has registers 4, qk_norm True: give --model.registers 0 --model.qk_norm false"
    ):
        load_stored(ViT(replace(wild.config, registers=4, qk_norm=True)), plain)
    with pytest.raises(ValueError, match="holds no LayerScale: leave layer_scale"):
        load_stored(ViT(replace(wild.config, layer_scale=0.1)), plain)


def test_a_table_of_two_sizes_does_not_say_which(wild):
    """9 rows are 3 x 3 patches, or 2 x 2 with a class token and 4 registers: told apart by the size that is given."""
    theirs = wild.oracle(reg_tokens=4)
    with pytest.raises(ValueError, match="9 rows, no square grid or more than one; give --image-size"):
        config_of(Stored(theirs.state_dict()), "it", stated={"arch": "w16d2m32h2/4"})
    ours = ViT(replace(wild.config, registers=4)).eval()
    load_stored(ours, Stored(theirs.state_dict()))
    torch.testing.assert_close(ours(wild.images), theirs(wild.images), rtol=0, atol=1e-5)


def test_parallel_blocks_of_timms_are_named(wild):
    stored = Stored(wild.oracle(block_fn=ParallelScalingBlock).state_dict())
    with pytest.raises(ValueError, match="holds parallel blocks in timm's fused form"):
        load_stored(ViT(wild.config), stored)


@pytest.mark.parametrize("kind", ["registers", "registers without a class token", "qk_norm", "norm", "layer_scale"])
@torch.no_grad()
def test_what_is_written_for_timm_computes_the_same_and_comes_back(wild, kind):
    torch.manual_seed(0)
    ours = ViT(replace(wild.config, **PARTS[kind][0])).eval()
    for parameter in ours.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = VisionTransformer(**timm_arguments(ours)).eval()
    theirs.load_state_dict(timm_state(ours))
    torch.testing.assert_close(theirs(wild.images), ours(wild.images), rtol=0, atol=1e-5)
    again = ViT(ours.config)
    load_stored(again, Stored(timm_state(ours)))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlp": "swiglu", "gelu": "tanh"}, "timm has no word for mlp swiglu"),
        ({"block": "parallel"}, "weights cannot express block parallel, only sequential"),
        ({"stem": "conv"}, "weights cannot express stem conv"),
    ],
)
def test_what_timm_has_no_words_for_is_refused(wild, options, message):
    with pytest.raises(ValueError, match=message):
        timm_arguments(ViT(replace(wild.config, arch="micro/4", **options)))
