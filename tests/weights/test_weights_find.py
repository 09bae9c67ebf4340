"""Files as training scripts leave them: wrapped, prefixed, with several networks, with other things beside them."""

import argparse
import collections
import pathlib

import numpy as np
import pytest
import torch

from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.google import npz_state, save_npz
from vitexp.weights.load import load_weights
from vitexp.weights.read import read_weights
from vitexp.weights.timm import timm_state

EXTRAS = {
    "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "scaler": {}, "best": np.float64(0.5),
    "args": argparse.Namespace(lr=1e-3, out=pathlib.PosixPath("/out"), betas=(0.9, 0.99), rng=np.arange(3)),
    "history": collections.defaultdict(list, {"loss": [1.0]}), "size": torch.Size([8]), "none": None,
}  # fmt: skip
WRAPPERS = {
    "bare": ("", lambda state: state),
    "model": ("model", lambda state: {"model": state}),
    "train script": ("state_dict", lambda state: EXTRAS | {"state_dict": state}),
    "parallel": ("state_dict.module", lambda state: {"state_dict": {f"module.{n}": v for n, v in state.items()}}),
    "compiled": ("_orig_mod", lambda state: {f"_orig_mod.{n}": v for n, v in state.items()}),
    "visual": ("model.visual.trunk", lambda state: {f"model.visual.trunk.{n}": v for n, v in state.items()}),
    "ordered": ("net", lambda state: {"net": collections.OrderedDict(state)}),
    "own head": ("encoder", lambda state: {f"encoder.{n}": v for n, v in state.items()} | {"proj.w": torch.ones(2)}),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_network_is_found_under_any_wrapper_and_any_prefix(tmp_path, wild, kind):
    theirs, path = wild.oracle(), tmp_path / "file.pth"
    prefix, wrap = WRAPPERS[kind]
    torch.save(wrap(theirs.state_dict()), path)
    wild.assert_same_logits(path, theirs)
    assert read_weights(path).name == (f"{path}#{prefix}" if prefix else str(path))


def test_of_several_networks_one_must_be_named(tmp_path, wild):
    raw, ema, path = wild.oracle(0), wild.oracle(1), tmp_path / "last.pth.tar"
    torch.save(EXTRAS | {"state_dict": raw.state_dict(), "state_dict_ema": ema.state_dict()}, path)
    with pytest.raises(
        ValueError, match=r"several networks, state_dict and state_dict_ema: say which, for example \S+#"
    ):
        load_weights(ViT(wild.config), path)
    wild.assert_same_logits(f"{path}#state_dict", raw)
    wild.assert_same_logits(f"{path}#state_dict_ema", ema)
    with pytest.raises(ValueError, match="holds no network under 'teacher'; it holds state_dict and state_dict_ema"):
        load_weights(ViT(wild.config), f"{path}#teacher")


def test_a_prefix_may_be_given_in_part_and_a_network_within_another_is_kept_apart(tmp_path, wild):
    student, teacher, path = wild.oracle(0), wild.oracle(1), tmp_path / "dino#1.pth"
    wrapped = {f"module.backbone.{name}": value for name, value in teacher.state_dict().items()}
    torch.save(student.state_dict() | {"teacher": wrapped | {"module.head.mlp.weight": torch.ones(2)}}, path)
    wild.assert_same_logits(f"{path}#teacher", teacher)
    with pytest.raises(ValueError, match=r"one without a prefix \('\.'\) and teacher\.module\.backbone"):
        load_weights(ViT(wild.config), path)
    wild.assert_same_logits(f"{path}#.", student)


def test_an_optimizers_arrays_are_no_network(tmp_path, wild):
    torch.manual_seed(0)
    model = ViT(ViTConfig(arch="micro/2", image_size=8, classes=3))
    arrays = {name: value.numpy() for name, value in npz_state(model).items()}
    moments = {f"opt/0/{kind}/{name}": array for kind in ("mu", "nu") for name, array in arrays.items()}
    np.savez(tmp_path / "full.npz", **{f"params/{name}": array for name, array in arrays.items()} | moments)
    again = ViT(model.config)
    load_weights(again, tmp_path / "full.npz")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_average_of_our_own_checkpoint_comes_first_and_the_last_can_be_named(tmp_path, wild):
    last, average, path = ViT(wild.config), ViT(wild.config), tmp_path / "last.ckpt"
    with torch.no_grad():
        average.norm.weight.add_(1)
    state = {
        f"{at}.{n}": v for at, net in (("network", last), ("average", average)) for n, v in net.state_dict().items()
    }
    torch.save({"state_dict": state, "vitexp": {"model": {"arch": wild.config.arch, "gelu": "exact"}}}, path)
    assert torch.equal(wild.filled(path).norm.weight, average.norm.weight)
    assert torch.equal(wild.filled(f"{path}#network").norm.weight, last.norm.weight)


def test_a_file_without_a_network_says_what_it_does_hold(tmp_path, wild):
    torch.save({"state_dict": {"layers.0.conv.weight": torch.ones(2)}}, tmp_path / "cnn.pt")
    with pytest.raises(
        ValueError, match=r"holds no Vision Transformer or ResNet .* such as state_dict\.layers\.0\.conv"
    ):
        load_weights(ViT(wild.config), tmp_path / "cnn.pt")


def test_another_gelu_is_refused_for_files_of_every_program(tmp_path, wild):
    tanh = ViT(ViTConfig(arch=wild.config.arch, image_size=8, classes=3))
    torch.save(timm_state(tanh), tmp_path / "timm.pt")
    with pytest.raises(ValueError, match="holds a network of gelu exact, and this one has gelu tanh"):
        load_weights(tanh, tmp_path / "timm.pt")
    save_npz(tanh, tmp_path / "google.npz")
    with pytest.raises(ValueError, match="holds a network of gelu tanh, and this one has gelu exact"):
        load_weights(ViT(wild.config), tmp_path / "google.npz")
