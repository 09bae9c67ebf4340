from itertools import permutations, product

import numpy as np
import pytest
import torch
from PIL import Image
from tools_at_work import look, numbers, table

from vitexp import torch_ops  # noqa: F401  (before timm)

import timm  # isort: skip

from vitexp import cli


def without_content(model):
    """Every token looks at all tokens alike."""
    for block in model.blocks:
        block.attention.qkv.weight.zero_()


@pytest.mark.parametrize(("pool", "tokens"), [("cls", 17), ("gap", 16)])
def test_heads_that_look_everywhere_alike_look_as_far_as_patches_lie(saved, tmp_path, pool, tokens):
    saved(without_content, pool=pool)
    assert look("--data", "digits", "--images", "20", out=tmp_path, what="distance") == 0
    places = np.array([(2 * row, 2 * column) for row in range(4) for column in range(4)])
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    expected = distances.sum(axis=1).mean() / tokens
    found = numbers(tmp_path / "inspect/own.safetensors-distance.csv", "distance_pixels")
    assert found == pytest.approx([expected] * 16, abs=1e-5)
    with Image.open(tmp_path / "inspect/own.safetensors-distance.png") as picture:
        assert picture.size[0] > 1000
    assert (tmp_path / "inspect/own.safetensors-distance.svg").read_text().startswith("<?xml")


def test_rollout_of_a_network_that_looks_everywhere_alike_is_even(saved, tmp_path):
    saved(without_content)
    assert look("--data", "digits", "--images", "20", out=tmp_path, what="rollout attention") == 0
    # Each layer keeps half of the cls token and takes 1/34 of every token, so 1/2^4 of it never leaves its place.
    for what, expected in (("rollout", (1 - 1 / 2**4) / 17), ("attention", 1 / 17)):
        found = numbers(tmp_path / f"inspect/own.safetensors-{what}.csv", "share")
        assert found == pytest.approx([expected] * 16 * 16, abs=1e-6)  # 16 images are drawn


def test_a_mean_over_patches_does_not_begin_at_a_register(saved, tmp_path):
    """Of even attention each patch gets 1/18; the mean patch keeps half of itself in each layer."""
    saved(without_content, pool="gap", registers=2)
    assert look("--data", "digits", "--images", "16", out=tmp_path, what="rollout attention") == 0
    found = np.array(numbers(tmp_path / "inspect/own.safetensors-attention.csv", "share"))
    assert found == pytest.approx(1 / 18, abs=1e-6)
    found = np.array(numbers(tmp_path / "inspect/own.safetensors-rollout.csv", "share"))
    assert found == pytest.approx((1 - 1 / 2**4) / 18 + 1 / 2**4 / 16, abs=1e-6)


@pytest.mark.parametrize(
    "axes", [{}, {"pos_embed": "2d"}, {"pos_at": "every", "pool": "gap"}, {"registers": 3}], ids=str
)
def test_similarity_is_the_cosine_of_what_is_added(saved, tmp_path, axes):
    model = saved(**axes)
    assert look(out=tmp_path, what="similarity decay") == 0
    tables = range(4 if axes.get("pos_at") == "every" else 1)
    expected = []
    for copy in tables:
        vectors = model.position.table(copy)[model.position.layout.prefix :].detach().double().numpy()
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        expected.append(unit @ unit.T)
    found = numbers(tmp_path / "inspect/own.safetensors-similarity.csv", "cosine")
    assert found == pytest.approx(np.array(expected).flatten(), abs=1e-6)
    assert look(out=tmp_path / "alone", what="decay") == 0
    assert len(list((tmp_path / "alone/inspect").iterdir())) == 3
    far = [float(one["cosine"]) for one in table(tmp_path / "inspect/own.safetensors-decay.csv")]
    assert far[:: len(far) // len(tables)] == pytest.approx([1.0] * len(tables))


def test_rotary_similarity_is_the_mean_cosine_of_its_angles(saved, tmp_path):
    saved(pos_embed="rope")
    assert look(out=tmp_path, what="similarity") == 0
    # heads of 16 values: 4 frequencies each for the column and the row
    turns = 100 ** (-np.arange(4) / 4)
    found = np.array(numbers(tmp_path / "inspect/own.safetensors-similarity.csv", "cosine")).reshape(4, 4, 4, 4)
    expected = (np.cos(2 * turns).sum() + np.cos(3 * turns).sum()) / 8
    assert found[3, 0, 1, 3] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("registers", [0, 2])
def test_offsets_are_those_of_the_table_where_queries_are_known(saved, tmp_path, registers):
    """All queries are the same vector, so that what is added is its product with the vector of each offset."""
    query = torch.linspace(-1, 1, 64)

    def same_queries(model):
        for block in model.blocks:
            block.attention.qkv.weight[:64] = 0
            block.attention.qkv.bias[:64] = query

    model = saved(same_queries, pos_embed="relative", pool="gap", registers=registers)
    assert look("--data", "digits", "--images", "8", out=tmp_path, what="offsets") == 0
    offsets = np.stack([one.detach().numpy() for one in model.position.offsets]).astype(float)
    logits = np.einsum("hk,lok->lho", query.numpy().reshape(4, 16), offsets).mean(axis=1) / 4
    bias = np.array([[[layer[k - q + 15] for k in range(16)] for q in range(16)] for layer in logits])
    rows = bias - bias.mean(axis=2, keepdims=True)
    expected = [np.diagonal(layer, offset).mean() for layer in rows for offset in range(-15, 16)]
    assert numbers(tmp_path / "inspect/own.safetensors-offsets.csv", "logit") == pytest.approx(expected, abs=1e-5)
    assert table(tmp_path / "inspect/own.safetensors-offsets.csv")[0]["offset"] == "-15"


@pytest.mark.parametrize(
    "axes",
    [
        {"attention": "local", "pool": "gap"},
        {"stem": "conv", "arch": "micro/4", "registers": 2, "pos_embed": "2d"},
        {"pool": "map", "pos_embed": "sincos2d"},
        {"arch": "R+micro/16", "image_size": 64},
        {"attention": "axial", "image_size": 8},
        {"attention": "axial", "registers": 1, "pool": "class_attention", "image_size": 8},
        {"attention": "strided", "pool": "seqpool"},
        {"pos_embed": "relative", "attention": "local"},
    ],
    ids=str,
)
def test_every_kind_of_network_shows_all_it_has(saved, tmp_path, axes):
    model = saved(**axes)
    words = ["--image-size", str(axes["image_size"])] if "image_size" in axes else []
    assert look("--data", "digits", "--images", "16", *words, out=tmp_path) == 0
    shown = {path.name.rpartition("-")[2].removesuffix(".csv") for path in tmp_path.glob("inspect/*.csv")}
    assert shown >= {"distance", "filters", "rollout", "attention", "cka"}
    assert ("offsets" in shown) == (axes.get("pos_embed") == "relative") != ("similarity" in shown)
    assert len(list((tmp_path / "inspect").iterdir())) == 3 * len(shown)
    assert max(path.stat().st_size for path in tmp_path.glob("inspect/*.svg")) < 100_000
    (file,) = tmp_path.glob("inspect/own.safetensors*-cka.csv")
    cka = np.array(numbers(file, "cka")).reshape(2 * [len(model.blocks) + 1])
    assert np.diag(cka) == pytest.approx(1)
    assert cka == pytest.approx(cka.T)


def test_axial_attention_stays_in_rows_and_columns(saved, tmp_path):
    """Attention to all of a row alike: the mean distance of 4 places with gaps of 2 pixels is 2.5."""

    def even(model):
        for block in model.blocks:
            block.attention.qkv.weight.zero_()
            block.column.attention.qkv.weight.zero_()

    saved(even, attention="axial", pool="gap")
    assert look("--data", "digits", "--images", "8", out=tmp_path, what="distance attention") == 0
    assert numbers(tmp_path / "inspect/own.safetensors-distance.csv", "distance_pixels") == pytest.approx([2.5] * 32)
    assert numbers(tmp_path / "inspect/own.safetensors-attention.csv", "share") == pytest.approx([1 / 16] * 16 * 8)


@pytest.fixture
def others(saved, monkeypatch):
    """A network of timm's, as `timm:` opens it."""
    saved()
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(20)
            block.attn.fused_attn = False
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: model)
    return model


def test_a_network_of_timms_shows_what_hooks_in_it_see(others, tmp_path):
    seen, entered = [], []
    for block in others.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _, __, out: seen.append(out.double().numpy()))
        block.register_forward_pre_hook(lambda _, given: entered.append(given[0].double().flatten(1).numpy()))
    words = ["inspect", "timm:vit_tiny_patch16_224", "--random", "--image-size", "32", "--data", "digits"]
    assert cli.main([*words, "--images", "8", "--out", str(tmp_path)]) == 0
    first, last = seen[-2:]  # 8 images are one batch
    steps = [(layer.mean(axis=1) + np.eye(5)) / 2 for layer in (first, last)]
    places = np.array([(0, 0), (0, 16), (16, 0), (16, 16)])
    patches = [layer[:, :, 1:, 1:] for layer in (first, last)]
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    by_hand = {
        "distance": (
            "distance_pixels",
            [(layer * apart).sum(-1).mean((0, 2)) for layer in patches],
        ),
        "rollout": ("share", (steps[1] @ steps[0])[:, 0, 1:]),
        "attention": ("share", last.mean(axis=1)[:, 0, 1:]),
    }
    for what, (column, expected) in by_hand.items():
        found = numbers(tmp_path / f"inspect/timm-vit_tiny_patch16_224-32px-{what}.csv", column)
        assert found == pytest.approx(np.array(expected).flatten(), abs=1e-5)
    one, other = ((part := entered[at]) @ part.T for at in (-2, -1))  # of the first layer and the second
    fours = list(permutations(range(8), 4))
    hsic = {
        (a, b): np.mean([k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in fours])
        for (a, k), (b, m) in product(enumerate((one, other)), repeat=2)
    }
    cka = np.array(numbers(tmp_path / "inspect/timm-vit_tiny_patch16_224-32px-cka.csv", "cka")).reshape(3, 3)
    assert cka[0, 1] == pytest.approx(hsic[0, 1] / np.sqrt(hsic[0, 0] * hsic[1, 1]), abs=1e-5)
    vectors = others.pos_embed.detach().double().numpy()[0, 1:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = numbers(tmp_path / "inspect/timm-vit_tiny_patch16_224-32px-similarity.csv", "cosine")
    assert found == pytest.approx((unit @ unit.T).flatten(), abs=1e-6)


@pytest.mark.parametrize(
    ("axes", "words", "told"),
    [
        ({}, ["--what", "distance"], "--what distance: it is about images: give --data"),
        ({}, ["--images", "3"], "--images is 3; give at least 4"),
        ({"pos_embed": "relative"}, ["--what", "similarity"], "no vectors are added to its patches"),
        ({"pos_embed": "1d"}, ["--what", "offsets", "--data", "digits"], "no relative positions"),
        ({"arch": "R50x1", "image_size": 32}, ["--data", "digits"], "no grid of tokens that attend to each other"),
        ({"image_size": 16}, ["--what", "distance", "--data", "digits"], "give --image-size 16"),
    ],
)
def test_refusals_are_one_sentence(saved, tmp_path, axes, words, told, capsys):
    saved(**axes)
    assert look(*words, out=tmp_path / "out") == cli.BAD_INPUT
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_first(saved, tmp_path, capsys):
    saved()
    (tmp_path / "file").write_text("")
    assert look(out=tmp_path / "file" / "below") == cli.BAD_INPUT
    assert f"--out {tmp_path / 'file' / 'below'} cannot be written to (" in capsys.readouterr().err
    assert cli.main(["inspect", "own.safetensors", "own.safetensors"]) == cli.BAD_INPUT
    assert "two networks would write files called inspect/own.safetensors" in capsys.readouterr().err
