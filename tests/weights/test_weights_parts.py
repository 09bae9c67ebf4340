"""Parts of timm's networks that ours do not have: the same logits, or a sentence that names the part."""

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled

from vitexp.nn.vit import ViT
from vitexp.weights.load import load_stored
from vitexp.weights.read import Stored

REFUSED = {
    "average": ({"global_pool": "avg", "class_token": False}, r"a norm after pooling.*\(fc_norm.bias\)"),
    "average with cls": ({"global_pool": "avg"}, r"a norm after pooling.*\(fc_norm.bias\)"),
    "CLIP": ({"pre_norm": True}, r"a norm before the first layer.*\(norm_pre.bias\)"),
    "norm in attention": ({"scale_attn_norm": True}, r"norms inside attention or MLP \(blocks.0.attn.norm.bias\)"),
}
TAKEN = {
    "plain": ({}, []),
    "layer scale": ({"init_values": 0.3}, ["LayerScale was multiplied into the projections before it"]),
    "no qkv bias": ({"qkv_bias": False}, ["have no bias in it, and begin here with one of zeros"]),
    "no row for cls": ({"no_embed_class": True}, []),
    "layer scale without a row": ({"no_embed_class": True, "init_values": 1e-5}, ["LayerScale"]),
    "no final norm after the mean": ({"global_pool": "avg", "class_token": False, "fc_norm": False}, []),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_part_without_a_place_is_named(wild, kind):
    options, said = REFUSED[kind]
    with pytest.raises(ValueError, match=f"the state dict holds .*{said}, for which vitexp's networks have no place"):
        load_stored(ViT(wild.config), Stored(wild.oracle(**options).state_dict()), new_head=True)


def test_a_distilled_network_is_named(wild):
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    with pytest.raises(ValueError, match=r"a distillation token, as distilled DeiTs have \(dist_token\)"):
        load_stored(ViT(wild.config), Stored(VisionTransformerDistilled(**sizes).state_dict()), new_head=True)


@pytest.mark.parametrize("kind", TAKEN)
@torch.no_grad()
def test_what_can_be_taken_in_computes_the_same(wild, kind):
    options, notes = TAKEN[kind]
    theirs = wild.oracle(**options)
    pool = "gap" if "global_pool" in options else "cls"
    ours = ViT(type(wild.config)(**vars(wild.config) | {"pool": pool})).eval()
    found = load_stored(ours, Stored(theirs.state_dict()))
    torch.testing.assert_close(ours(wild.images), theirs(wild.images), rtol=0, atol=1e-5)
    wanted = [*notes, "does not say how its images were normalised"]
    assert all(words in note for words, note in zip(wanted, found, strict=True))


def test_half_precision_is_read_exactly(wild):
    half = {name: value.half() for name, value in wild.oracle(init_values=0.3).state_dict().items()}
    one, other = ViT(wild.config), ViT(wild.config)
    load_stored(one, Stored(half))
    load_stored(other, Stored({name: value.float() for name, value in half.items()}))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
