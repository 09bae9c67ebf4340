"""Damaged and hostile weights files: every one is read for what it is, or refused in one sentence."""

import io
import json
import random
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from vitexp.nn.vit import ViT, ViTConfig
from vitexp.tools.network import open_network
from vitexp.weights.google import npz_bytes, npz_state
from vitexp.weights.read import OWN_KEY, config_words, own_bytes
from vitexp.weights.timm import timm_state

STATED = {"arch": "w16d2m32h2/4"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ViT(ViTConfig(arch=STATED["arch"], image_size=8, classes=3, gelu="exact")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def google(model):
    return npz_state(ViT(ViTConfig(arch=STATED["arch"], image_size=8, classes=3)))


WHOLE = {
    "npz": lambda model: npz_bytes(google(model), ViTConfig(arch=STATED["arch"], image_size=8, classes=3)),
    "safetensors": own_bytes,
    "timm safetensors": lambda model: safetensors.torch.save(timm_state(model)),
    "pt": lambda model: saved({"model": timm_state(model)}),
    "old pt": lambda model: saved(timm_state(model), _use_new_zipfile_serialization=False),
}


def outcome(path):
    """None where the file is read; otherwise the sentence."""
    try:
        opened = open_network(str(path), stated={} if b'"vitexp"' in path.read_bytes() else STATED)
    except ValueError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert str(path) in sentence, sentence
        assert len(sentence) < 700
        return sentence
    assert all(torch.isfinite(value).all() for value in opened.network.state_dict().values())
    return None


def damaged(content, generator):
    """A file of which bytes were lost, changed, doubled or moved."""
    data, kind = bytearray(content), generator.randrange(6)
    # Half of the faults are where the structure is, at the start or the end.
    edge = generator.choice([0, max(0, len(data) - 400), generator.randrange(len(data))])
    at = min(len(data) - 1, edge + generator.randrange(400))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        data[at] ^= 1 << generator.randrange(8)
    elif kind == 2:
        data[at : at + 8] = generator.randbytes(8)
    elif kind == 3:
        data[at : at + 8] = b"\xff" * 8
    elif kind == 4:
        data[at:at] = data[: generator.randrange(1, 64)]
    else:
        del data[at : at + generator.randrange(1, 64)]
    return bytes(data)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_file_is_one_sentence_or_right(tmp_path, model, kind, capsys):
    path, content, generator = tmp_path / "weights", WHOLE[kind](model), random.Random(kind)
    path.write_bytes(content)
    assert outcome(path) is None
    refused = 0
    for _ in range(40):
        path.write_bytes(damaged(content, generator))
        refused += outcome(path) is not None
    assert refused > 10


def changed(values):
    """Names and values of which one is no longer what it was."""
    name = "patch_embed.proj.weight" if "patch_embed.proj.weight" in values else "embedding/kernel"
    value = values[name]
    others = {
        "ints": value.to(torch.int64), "complex": value.to(torch.complex64), "bool": value > 0,
        "one value": value[:1, 0], "empty": value[:0], "no axis": value.flatten()[0], "nan": value * torch.nan,
        "infinity": value / 0,
        "swapped": value.transpose(0, -1).contiguous(), "more axes": value[None], "long": value.repeat(3, 1, 1, 1),
    }  # fmt: skip
    yield from ((kind, values | {name: other}) for kind, other in others.items())
    yield "half of the names", dict([*values.items()][::2])
    yield "only that", {name: value}


@pytest.mark.parametrize("form", ["timm", "google"])
def test_other_shapes_types_and_values_are_one_sentence(tmp_path, model, form):
    path = tmp_path / "weights"
    for kind, state in changed(timm_state(model) if form == "timm" else google(model)):
        if form == "timm":
            torch.save({"state_dict": state}, path)
        else:
            with path.open("wb") as file:
                np.savez(file, **{name: value.numpy() for name, value in state.items()})
        assert outcome(path), kind


def archive(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def header(words, data=b""):
    text = words if isinstance(words, bytes) else json.dumps(words).encode()
    return len(text).to_bytes(8, "little") + text + data


def npy(shape, data=b"", descr="<f4"):
    words = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words.encode() + data


def laughs():
    """Mappings that hold one another twice, thirty deep."""
    tree = {}
    for _ in range(30):
        tree = {"a": tree, "b": tree}
    return tree


HOSTILE = {
    "header without end": b"\xff" * 7 + b"\x7f{",
    "header of lists": header(b'{"a": [[[[1]]]]}'),
    "a shape beyond its bytes": header({"cls": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}),
    "an array beyond its bytes": archive(("embedding/kernel.npy", npy((2**60,)))),
    "an array of negative size": archive(("embedding/kernel.npy", npy((-3, 4)))),
    "an array of objects": archive(("embedding/kernel.npy", npy((1,), b"cos\nsystem\n(S'x'\ntR.", "|O"))),
    "no array at all": archive(("embedding/kernel.npy", b"nothing")),
    "a bomb": archive(("embedding/kernel.npy", npy((2**28 + 2**20,), bytes(2**20)))),
    "mappings in mappings": saved(laughs()),
    "names that are numbers": saved({1: torch.ones(1), (2, 3): torch.ones(1)}),
    "lists": saved({"model": {"patch_embed.proj.weight": [torch.ones(16, 3, 4, 4)]}}),
}  # fmt: skip


def of_words(model, **words):
    config = json.loads(config_words(model.config)) | words
    return safetensors.torch.save(dict(model.state_dict()), metadata={OWN_KEY: json.dumps(config)})


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_one_sentence(tmp_path, kind):
    path = tmp_path / "weights"
    path.write_bytes(HOSTILE[kind])
    assert outcome(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_in_an_archive_twice_is_refused(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(archive(*[("embedding/kernel.npy", npy((1,), bytes(4)))] * 2))
    assert "embedding/kernel.npy is in it twice" in outcome(path)


@pytest.mark.parametrize(
    "words",
    [
        {"arch": 3}, {"arch": "w16d900000000m32h2/4"}, {"arch": "w900000d2m32h2/4"}, {"classes": "many"},
        {"image_size": "large"}, {"image_size": [8, 8, 8]}, {"image_size": 10**9}, {"pool": ["cls"]}, {"gelu": "relu"},
        {"gelu": {}}, {"dropout": None}, {"window": "3"}, {"head_bias": "high"}, {"classes": 10**12},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_its_weights_contradict_is_one_sentence(tmp_path, model, words):
    path = tmp_path / "weights"
    path.write_bytes(of_words(model, **words))
    assert outcome(path)


def test_a_flipped_bit_in_an_archive_is_seen(tmp_path, model):
    content = bytearray(WHOLE["pt"](model))
    content[len(content) // 2] ^= 1
    (tmp_path / "weights").write_bytes(content)
    assert "the checksum of" in outcome(tmp_path / "weights")


def test_what_a_person_states_must_not_contradict_the_file(tmp_path, model):
    path = tmp_path / "weights"
    path.write_bytes(own_bytes(model))
    with pytest.raises(ValueError, match=r"--gelu tanh contradicts \S+weights, which holds a network of gelu exact"):
        open_network(str(path), stated={"gelu": "tanh"})
