import pytest
import torch

from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.config import config_of
from vitexp.weights.google import npz_state
from vitexp.weights.read import Stored
from vitexp.weights.timm import timm_state

ARMS = [
    {"arch": "micro/2", "image_size": 8},
    {"arch": "micro/4", "image_size": 24, "pool": "gap"},
    {"arch": "Ti/16", "image_size": 384},
    {"arch": "B/32"},
    {"arch": "H/14"},
    {"arch": "R+Ti/16"},
    {"arch": "R50+B/16"},
    {"arch": "R50+L/32"},
    {"arch": "R26+S/32"},
]


def on_meta(**axes):
    with torch.device("meta"):
        return ViT(ViTConfig(**{"classes": 7} | axes))


@pytest.mark.parametrize("axes", ARMS, ids=lambda axes: f"{axes['arch']}-{axes.get('pool', 'cls')}")
@pytest.mark.parametrize("form", ["google", "timm"])
def test_names_and_shapes_tell_the_network(axes, form):
    model = on_meta(**axes)
    tensors = npz_state(model) if form == "google" else timm_state(model)
    assert config_of(Stored(tensors), "the file", stated={"gelu": "tanh"}) == model.config
    assert config_of(Stored(tensors), "the file").gelu == {"google": "tanh", "timm": "exact"}[form]


def test_the_hidden_layer_and_prefixes_are_seen():
    model = on_meta(arch="micro/2", image_size=8, head="tanh")
    tensors = {f"params/{name}": value for name, value in npz_state(model).items()}
    assert config_of(Stored(tensors), "the file") == model.config


def test_another_size_can_be_asked_for_and_must_be_without_positions():
    model = on_meta(arch="micro/2", image_size=8, pos_embed="none")
    state = timm_state(model)
    stated = {"pos_embed": "none", "gelu": "tanh"}
    with pytest.raises(ValueError, match="does not say its image size; give --image-size"):
        config_of(Stored(state), "the file", stated=stated)
    assert config_of(Stored(state), "the file", 8, stated) == model.config
    assert config_of(Stored(timm_state(on_meta(arch="micro/2", image_size=8))), "the file", 16).image_size == 16


def test_words_of_ours_are_taken_and_words_of_a_later_version_are_not():
    words = {"arch": "micro/2", "image_size": [8, 12], "classes": 3, "pos_embed": "relative", "lr": 0.1, "spin": "up"}
    config = config_of(Stored({}, words), "the file")
    assert (config.arch, config.image_size, config.classes, config.pos_embed) == ("micro/2", (8, 12), 3, "relative")


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (Stored({"weight": torch.zeros(1)}), "holds no Vision Transformer or ResNet"),
        (Stored({}, {"classes": 3}), "although it is a file of vitexp"),
        (Stored({"embedding/kernel": torch.zeros(2, 2, 3, 64)}), "holds no layers"),
        (Stored({"patch_embed.proj.weight": torch.zeros(64, 3, 2, 2)}), "holds no layers"),
    ],
)
def test_what_is_no_network_of_ours_is_said(stored, told):
    with pytest.raises(ValueError, match=told):
        config_of(stored, "the file")
