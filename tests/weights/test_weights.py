import os
import pickle
import re
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.ndimage
import torch
from safetensors.torch import save_file

from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.google import save_npz
from vitexp.weights.load import load_stored, load_weights
from vitexp.weights.read import Stored, read_file
from vitexp.weights.timm import timm_state

MICRO = {"arch": "micro/2", "image_size": 8, "classes": 10}


def network(seed=0, **options):
    """A network with every parameter at random, the zero head and token too."""
    model = ViT(ViTConfig(**MICRO | options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(model, expected, but=()):
    found = model.state_dict()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == list(but)


def write_npz(model, path):
    with path.open("wb") as file:
        save_npz(model, path.with_suffix(".tmp"))
        file.write(path.with_suffix(".tmp").read_bytes())


def write_checkpoint(model, path):
    state = {f"network.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state | {"seen": torch.tensor(3)}, "epoch": 2, "callbacks": {"ema": {}}}, path)


WRITERS = {
    "npz": write_npz,
    "safetensors": lambda model, path: save_file(model.state_dict(), path),
    "timm safetensors": lambda model, path: save_file(timm_state(model), path),
    "pt": lambda model, path: torch.save(model.state_dict(), path),
    "annotated pt": lambda model, path: torch.save(model.state_dict() | {"epoch": 3, 4: torch.ones(1)}, path),
    "timm pt": lambda model, path: torch.save(timm_state(model), path),
    "old pt": lambda model, path: torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False),
    "ckpt": write_checkpoint,
    "compiled": lambda model, path: torch.save({f"_orig_mod.{n}": v for n, v in model.state_dict().items()}, path),
}


GELU = {kind: "exact" if kind.startswith("timm") else "tanh" for kind in WRITERS}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_reader_is_chosen_by_what_is_in_the_file(tmp_path, kind):
    written, path = network(gelu=GELU[kind]), tmp_path / "weights"
    WRITERS[kind](written, path)
    model = network(seed=1, gelu=GELU[kind])
    load_weights(model, path)
    assert_same(model, values(written))


@pytest.mark.parametrize(
    "options",
    [
        {"pos_embed": "2d", "pos_at": "every"},
        {"pos_embed": "relative"},
        {"pos_at": "shared", "pool": "gap"},
        {"head": "tanh", "image_size": (4, 10)},
    ],
)
def test_our_own_checkpoints_carry_every_arm(tmp_path, options):
    written = network(**options)
    write_checkpoint(written, tmp_path / "last.ckpt")
    model = network(seed=1, **options)
    load_weights(model, tmp_path / "last.ckpt")
    assert_same(model, values(written))


@pytest.mark.parametrize("kind", ["npz", "timm pt", "ckpt"])
@pytest.mark.parametrize("size", [16, (8, 20)])
def test_positions_are_stretched_to_another_image_size(tmp_path, kind, size):
    written, path = network(gelu=GELU[kind]), tmp_path / "weights"
    WRITERS[kind](written, path)
    model = network(seed=1, image_size=size, gelu=GELU[kind])
    load_weights(model, path)
    old, new = written.position.tables[0].detach(), model.position.tables[0].detach()
    rows, columns = model.layout.grid
    zoomed = scipy.ndimage.zoom(old[1:].numpy().reshape(4, 4, -1), (rows / 4, columns / 4, 1), order=1)
    assert torch.equal(new[0], old[0])
    np.testing.assert_allclose(new[1:].numpy(), zoomed.reshape(-1, 64), rtol=0, atol=1e-6)
    assert_same(model, values(written) | {"position.tables.0": new})


def test_positions_of_an_oblong_grid_need_to_be_told_so():
    written, model = network(image_size=(4, 12)), network(image_size=8)
    before = values(model)
    with pytest.raises(ValueError, match=r"table of 13 rows .* give grid"):
        load_stored(model, Stored(written.state_dict()))
    assert_same(model, before)
    load_stored(model, Stored(written.state_dict()), grid=(2, 6))
    assert_same(model, values(written), but=["position.tables.0"])


def test_only_rows_of_a_position_table_may_differ():
    model = network()
    state = values(model) | {"position.tables.0": torch.ones(64)}
    with pytest.raises(ValueError, match=r"wrong position\.tables\.0 of shape \(64,\) instead of \(17, 64\)"):
        load_stored(model, Stored(state))


def test_relative_offsets_belong_to_one_image_size():
    written, model = network(pos_embed="relative"), network(pos_embed="relative", image_size=12)
    with pytest.raises(ValueError, match=r"wrong position\.offsets\.0 of shape \(33, 16\) instead of \(73, 16\)"):
        load_stored(model, Stored(written.state_dict()))


@pytest.mark.parametrize("kind", ["npz", "timm pt", "ckpt"])
def test_another_number_of_classes_needs_a_new_head_and_gets_a_zero_one(tmp_path, kind):
    written, path = network(classes=7, gelu=GELU[kind]), tmp_path / "weights"
    WRITERS[kind](written, path)
    model = network(seed=1, head_bias=-2.0, gelu=GELU[kind])
    with pytest.raises(ValueError, match=r"head.* of shape .*7.* instead of .*10.*; new_head starts a zero head"):
        load_weights(model, path)
    load_weights(model, path, new_head=True)
    assert not model.head.weight.any()
    assert (model.head.bias == -2).all()
    body = {name: value for name, value in values(written).items() if not name.startswith("head.")}
    assert_same(model, body)


def test_a_new_head_drops_the_stored_hidden_layer_where_there_is_none():
    written, model = network(head="tanh"), network(seed=1)
    with pytest.raises(ValueError, match=r"unexpected pre_logits\.bias, pre_logits\.weight; new_head"):
        load_stored(model, Stored(written.state_dict()))
    load_stored(model, Stored(written.state_dict()), new_head=True)
    assert not model.head.weight.any()
    kept = network(seed=1, head="tanh")
    load_stored(kept, Stored(written.state_dict()), new_head=True)
    assert torch.equal(kept.pre_logits.weight, written.pre_logits.weight)


def test_every_fault_is_named_in_one_sentence_and_the_network_stays_as_it_was(tmp_path):
    model, arrays = network(), {}
    save_npz(network(seed=1), tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as file:
        arrays |= {name: file[name] for name in file.files}
    del arrays["Transformer/encoderblock_2/MultiHeadDotProductAttention_1/key/bias"]
    arrays["Transformer/encoderblock_4/LayerNorm_0/scale"] = np.ones(64, np.float32)
    arrays["embedding/bias"] = np.ones((1, 64), np.float32)
    arrays["Transformer/posembed_input/pos_embedding"] = np.ones((17, 64), np.float32)
    np.savez(tmp_path / "bad.npz", **arrays)
    before = values(model)
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        load_weights(model, tmp_path / "bad.npz")
    assert str(caught.value) == (
        f"{tmp_path / 'bad.npz'} does not fit this network: "
        "missing Transformer/encoderblock_2/MultiHeadDotProductAttention_1/key/bias; "
        "unexpected Transformer/encoderblock_4/LayerNorm_0/scale; "
        "wrong embedding/bias of shape (1, 64) instead of (64,), "
        "Transformer/posembed_input/pos_embedding of shape (17, 64) instead of (1, 17, 64)"
    )
    assert_same(model, before)


def test_a_long_list_of_faults_is_cut():
    six = "stem.embedding.bias, pool.cls, position.tables.0, blocks.0.norm1.weight, blocks.0.norm1.bias, "
    six += "blocks.0.attention.qkv.weight"
    with pytest.raises(ValueError, match=rf"missing {re.escape(six)} and 49 more; unexpected noise$"):
        load_stored(network(), Stored({"stem.embedding.weight": torch.ones(64, 3, 2, 2), "noise": torch.ones(1)}))


@dataclass
class Bomb:
    """Unpickled, it makes a folder."""

    crater: str

    def __reduce__(self):
        return os.mkdir, (self.crater,)


def write_arrays(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def write_flipped(path):
    """A bit turned over in the middle of an array."""
    write_npz(network(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    path.with_suffix(".tmp").unlink()


BAD_FILES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights"),
    "image": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n0000"),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"stem.embedding.weight": Bomb(f"{path}-crater")}, 2)),
    "pt": lambda path: torch.save({"state_dict": Bomb(f"{path}-crater")}, path),
    "list": lambda path: torch.save([torch.ones(3)], path),
    "objects": lambda path: write_arrays(
        path, **{"embedding/kernel": np.array([Bomb(f"{path}-crater")], dtype=object)}
    ),
    "words": lambda path: write_arrays(path, **{"embedding/kernel": np.array(["a"])}),
    "flipped": write_flipped,
    "other": lambda path: torch.save({"conv1.weight": torch.ones(3)}, path),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_not_weights_is_refused_by_name_and_never_executed(tmp_path, kind):
    path = tmp_path / "weights"
    BAD_FILES[kind](path)
    refusals = {"empty": "is no weights file", "text": "is no weights file", "image": "is no weights file"}
    refusal = refusals.get(kind, "holds no Vision Transformer" if kind == "other" else "was not read")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}.*{refusal}") as caught:
        load_weights(network(), path)
    if kind in ("pickle", "pt"):
        assert "can run code: with the program that wrote it, save the state dict alone" in str(caught.value)
        assert "safetensors.torch.save_file" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pt", "old pt"])
@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_a_truncated_file_is_refused_by_name(tmp_path, kind, keep):
    path = tmp_path / "weights"
    WRITERS[kind](network(), path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is (damaged|no weights file)"):
        read_file(path)


def test_an_absent_file_and_a_network_that_is_no_vit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.npz does not exist"):
        load_weights(network(), tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="into a ViT or a ResNet of vitexp, not into a Linear"):
        load_stored(torch.nn.Linear(2, 2), Stored({}))
