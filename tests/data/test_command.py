"""`vitexp shards` as a user types it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from vitexp import cli
from vitexp.data.shards.index import index_shards


def shards(*words):
    chosen = cli.build_parser().parse_args(["shards", *map(str, words)])
    return cli.function(chosen.verb)(chosen)


def test_make_then_info_then_verify(tmp_path, capsys):
    out = tmp_path / "digits"
    assert shards("make", "digits", out, "--shard-images", 1000, "--val-fraction", 0.1) == 0
    assert capsys.readouterr().out == (
        f"digits: 1,295 train + 143 val + 359 test images of 10 classes in 4 shards -> {out}\n"
    )
    assert shards("info", out) == 0
    text = capsys.readouterr().out
    assert "all 8 x 8 pixels" in text
    assert "1,295 png" in text
    assert "from digits" in text
    assert shards("verify", out) == 0
    assert capsys.readouterr().out.endswith("1,797 images, no problems\n")


def test_info_as_json_is_one_document(make_set, digits, tmp_path, capsys):
    folder = make_set(tmp_path / "odd", train=[[1, 1], [2]], test=[[1, 3]])
    sheet = tmp_path / "sheet.png"
    assert shards("info", folder, "--json", "--contact-sheet", sheet) == 0
    found = json.loads(capsys.readouterr().out)
    assert sheet.is_file()
    assert next(iter(found.items())) == ("schema", "vitexp.shards_info/1")
    assert (found["name"], found["directory"], found["recipe"]) == ("toy", str(folder), None)
    train = found["splits"]["train"]
    assert (train["images"], train["shards"], train["images_per_class"]) == (3, 2, [0, 2, 1, 0])
    assert train["bytes"] == sum(path.stat().st_size for path in folder.glob("*train*.tar"))
    assert train["kinds"] == {"png": 3}
    assert any(note.startswith("1 of 4 classes (3) has no training image") for note in found["notes"])
    assert shards("info", digits, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["image_size"], found["class_names"]) == ([8, 8], list("0123456789"))
    assert found["recipe"] == json.loads((digits / "recipe.json").read_text())
    assert sum(found["splits"]["test"]["images_per_class"]) == found["splits"]["test"]["images"] == 359


def test_every_option_of_make_arrives(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "set" / label / f"{i}.png").write_bytes(picture.getvalue())
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(noise, "PNG")
    (tmp_path / "set/a/0.png").write_bytes(noise.getvalue()[:-300])
    source, out = tmp_path / "set", tmp_path / "out"
    with pytest.raises(ValueError, match="--max-bad"):
        shards("make", source, out)
    options = ("--test-fraction", 0.5, "--seed", 3, "--shard-bytes", 20_000, "--workers", 2)
    assert shards("make", source, out, "--max-bad", 1, *options) == 0
    recipe = (out / "recipe.json").read_text()
    for part in ('"seed": 3', '"shard_bytes": 20000', '"test_fraction": 0.5', '"max_bad": 1', "a-0: the PNG"):
        assert part in recipe
    assert shards("make", source, tmp_path / "unchecked", "--no-check") == 0


def test_folder_reaches_the_official_files(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path / 'here'} lacks the official files of cifar100"):
        shards("make", "cifar100", tmp_path / "out", "--folder", tmp_path / "here")


def test_verify_prints_every_problem_and_fails(digits, tmp_path, capsys):
    for path in digits.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("digits-train-000001.tar", "digits-train-000005.tar"):
        data = bytearray((tmp_path / name).read_bytes())
        data[1024 * 50 + 700] ^= 0xFF
        (tmp_path / name).write_bytes(data)
    assert shards("verify", tmp_path) == 1
    text = capsys.readouterr().out
    assert "digits-train-000001.tar" in text
    assert "digits-train-000005.tar" in text
    assert text.endswith("2 problems\n")


def test_index_is_made_for_shards_from_elsewhere(make_set, tmp_path, capsys):
    folder = make_set(tmp_path / "set", train=[[0, 1, 2], [1, 1]], test=[[0, 2]])
    assert shards("index", folder) == 0
    assert capsys.readouterr().out == f"toy: 5 train + 2 test images of 3 classes in 3 shards -> {folder}\n"
    assert (folder / "toy-train.index.npy").is_file()


def test_every_shard_that_is_indexed_is_told(make_set, tmp_path):
    told = []
    index_shards(make_set(tmp_path / "set", train=[[0, 1, 2], [1, 1]], test=[[0, 2]]), report=told.append)
    assert told == [1, 1, 1]


def test_a_contact_sheet_shows_each_class_in_its_row(make_set, tmp_path, capsys):
    folder = make_set(tmp_path / "set", classes=3, train=[[0, 1, 2, 0, 1, 2]])
    sheet = tmp_path / "deep/sheet.png"
    assert shards("info", folder, "--contact-sheet", sheet) == 0
    assert f"contact sheet: {sheet}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(sheet))
    for label in range(3):  # the images of make_set are as dark as their label
        row = pixels[label * 66 : label * 66 + 64]
        assert (row[:, 120:184] == label).all()
        assert (row[:, 186:250] == label).all()
        assert (row[:, 252:] == 255).all()
        assert (row[:, :120] < 128).any()  # the name


def test_info_says_what_is_odd_about_the_classes(make_set, tmp_path, capsys):
    make_set(tmp_path / "odd", train=[[1, 1, 2]], test=[[1, 3]])
    assert shards("info", tmp_path / "odd") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")] == [
        "note: 1 of 4 classes (0) has no image in any split; do the labels count from 1?",
        "note: 1 of 4 classes (3) has no training image, but 1 in test: never right there",
        "note: 1 of 4 classes (2) has no image in test, which says nothing about them",
    ]
    make_set(tmp_path / "only", test=[[0, 1]])
    assert shards("info", tmp_path / "only", "--contact-sheet", tmp_path / "sheet.png") == 0
    assert "note: there is no train split, and so nothing to train on" in capsys.readouterr().out
