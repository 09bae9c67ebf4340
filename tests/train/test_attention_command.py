import csv

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp import cli
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.read import save_own


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("attention")


@pytest.fixture
def saved(home, monkeypatch):
    """Saves a network in a folder where the digits are written on first use."""
    monkeypatch.chdir(home)

    def save(change=None, **axes):
        torch.manual_seed(0)
        model = ViT(ViTConfig(**{"arch": "micro/2", "image_size": 8, "classes": 10} | axes)).eval()
        if change:
            with torch.no_grad():
                change(model)
        save_own(model, "own.safetensors")
        return model

    return save


def look(what, *words, out):
    return cli.main(["attention", "own.safetensors", "--what", what, "--out", str(out), *words])


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def without_content(model):
    """Every token looks at all tokens alike."""
    for block in model.blocks:
        block.attention.qkv.weight.zero_()


@pytest.mark.parametrize(("pool", "tokens"), [("cls", 17), ("gap", 16)])
def test_heads_that_look_everywhere_alike_look_as_far_as_patches_lie(saved, tmp_path, pool, tokens, capsys):
    saved(without_content, pool=pool)
    assert look("distance", "--data", "digits", "--images", "20", out=tmp_path) == 0
    places = np.array([(2 * row, 2 * column) for row in range(4) for column in range(4)])
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    rows = table(tmp_path / "distance.csv")
    assert len(rows) == 16
    expected = distances.sum(axis=1).mean() / tokens
    assert [float(row["distance_pixels"]) for row in rows] == pytest.approx([expected] * 16, abs=1e-5)
    assert f"to all alike: {expected:.1f}" in capsys.readouterr().out
    with Image.open(tmp_path / "distance.png") as picture:
        assert picture.size[0] > 1000
    assert (tmp_path / "distance.svg").read_text().startswith("<?xml")


def test_rollout_of_a_network_that_looks_everywhere_alike_is_even(saved, tmp_path):
    saved(without_content)
    assert look("rollout", "--data", "digits", "--images", "3", out=tmp_path) == 0
    rows = table(tmp_path / "rollout.csv")
    assert len(rows) == 3 * 16
    # Each layer keeps half of the cls token and takes 1/34 of every token, so 1/2^4 of it never leaves its place.
    expected = (1 - 1 / 2**4) / 17
    assert [float(row["share"]) for row in rows] == pytest.approx([expected] * 48, abs=1e-6)
    assert (tmp_path / "rollout.png").exists()


def test_rollout_does_not_begin_at_a_register(saved, tmp_path, capsys):
    saved(pool="gap", registers=2)
    assert look("rollout", "--data", "digits", "--images", "3", out=tmp_path) == cli.BAD_INPUT
    assert "reads none of the tokens before its patches" in capsys.readouterr().err


@pytest.mark.parametrize(
    "axes", [{}, {"pos_embed": "2d"}, {"pos_at": "every", "pool": "gap"}, {"registers": 3}], ids=str
)
def test_similarity_is_the_cosine_of_what_is_added(saved, tmp_path, axes):
    model = saved(**axes)
    assert look("similarity", out=tmp_path) == 0
    vectors = model.position.table(0)[model.position.layout.prefix :].detach().double().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [float(row["cosine"]) for row in table(tmp_path / "similarity.csv")]
    assert found == pytest.approx((unit @ unit.T).flatten(), abs=1e-6)
    assert (tmp_path / "similarity.png").exists()


def test_filters_are_drawn(saved, tmp_path):
    saved()
    assert look("filters", out=tmp_path) == 0
    assert len(table(tmp_path / "filters.csv")) == 12 * 3 * 2 * 2
    assert (tmp_path / "filters.png").exists()


def test_a_network_of_timms_is_looked_at_too(saved, tmp_path):
    saved()
    words = ["attention", "timm:vit_tiny_patch16_224", "--random", "--image-size", "32", "--data", "digits"]
    assert cli.main([*words, "--images", "4", "--out", str(tmp_path)]) == 0
    assert len(table(tmp_path / "distance.csv")) == 12 * 3


@pytest.mark.parametrize(
    ("axes", "words", "told"),
    [
        ({}, ["distance"], "--what distance needs --data"),
        ({}, ["filters", "--data", "digits"], "leave out --data"),
        ({}, ["similarity", "--images", "3"], "only for distance and rollout"),
        ({"pos_embed": "relative"}, ["similarity"], "pos_embed relative adds nothing"),
        ({"pos_embed": "none"}, ["similarity"], "pos_embed none adds nothing"),
        ({"arch": "R+micro/16", "image_size": 64}, ["filters"], "stem root cuts patches of feature maps"),
        ({"attention": "axial", "pool": "gap"}, ["distance", "--data", "digits"], "its attention is not full"),
        ({"image_size": 16}, ["distance", "--data", "digits"], "give --image-size 16"),
    ],
)
def test_refusals_are_one_sentence(saved, tmp_path, axes, words, told, capsys):
    saved(**axes)
    assert look(*words, out=tmp_path / "out") == cli.BAD_INPUT
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
