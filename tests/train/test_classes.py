"""Classes are matched by their names, or the measurement is refused."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp import cli
from vitexp.record import read_record
from vitexp.train.answers import class_places

WORDS = [
    "--model.arch=micro/4", "--data.batch_size=30", "--trainer.max_epochs=10", "--model.lr=0.003", "--run.wandb=off",
    "--run.shots=[]", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
]  # fmt: skip
CHECKPOINT = "--ckpt_path=run/checkpoints/last.ckpt"
SHADES = {"cat": 40, "dog": 128, "fox": 215}


@pytest.fixture
def make(tmp_path, monkeypatch, capsys):
    """Writes a set of plain grey images; each class has a folder, named as asked."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)

    def shards(name, classes):
        for split in ("train", "test"):
            for kind, folder in classes.items():
                place = tmp_path / name / split / folder
                place.mkdir(parents=True)
                for number in range(10):
                    pixels = np.clip(noise.normal(SHADES[kind], 5, (8, 8, 3)), 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(place / f"{number}.png")
        assert cli.main(["shards", "make", str(tmp_path / name), str(tmp_path / f"s_{name}")]) == 0
        return tmp_path / f"s_{name}"

    return shards


def run(verb, shards, *words):
    return cli.main([verb, f"--data.shards={shards}", *WORDS, "--run.dir=run", *words])


def test_the_same_pictures_give_the_same_number_or_a_refusal(make, capsys):
    assert run("fit", make("all", {"cat": "cat", "dog": "dog", "fox": "fox"})) == 0
    first = capsys.readouterr().out
    assert "test        accuracy 100.00 %" in first
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["vitexp"]["classes"] == ["cat", "dog", "fox"]
    assert read_record("run").data["class_names"] == ["cat", "dog", "fox"]

    assert run("test", make("two", {"dog": "dog", "fox": "fox"}), CHECKPOINT) == 0
    printed = capsys.readouterr().out
    assert "classes are matched by name: 2 of 3; two has no cat" in printed
    assert "accuracy 100.00 %" in printed
    assert "(20 images)" in printed

    renamed = make("renamed", {"cat": "zebra", "dog": "dog", "fox": "fox"})
    for verb in ("test", "validate", "predict"):
        assert run(verb, renamed, CHECKPOINT) == cli.BAD_INPUT
        error = capsys.readouterr().err
        assert "does not know: zebra; it knows cat, dog, fox" in error
        assert error.count("\n") == 1

    del checkpoint["vitexp"]["classes"]
    torch.save(checkpoint, "old.ckpt")
    assert run("test", "./s_two", "--ckpt_path=old.ckpt") == cli.BAD_INPUT
    assert "keeps no class names, and its network has 3 classes where two has 2" in capsys.readouterr().err
    assert run("test", "./s_all", "--ckpt_path=old.ckpt") == 0
    assert "matched by number, which nobody can check" in capsys.readouterr().out


def test_names_in_another_order_are_told_apart(make, capsys):
    """The classes of a copy are named the other way round: what was class 0 is now called as class 2 was."""
    shards = make("all", {"cat": "cat", "dog": "dog", "fox": "fox"})
    assert run("fit", shards) == 0
    shutil.copytree(shards, "turned")
    Path("turned/classes.txt").write_text("fox\ndog\ncat\n")
    assert cli.main(["shards", "index", "turned"]) == 0
    capsys.readouterr()
    assert run("test", "./turned", CHECKPOINT) == 0
    printed = capsys.readouterr().out
    assert "classes are matched by name: 3 of 3, in another order" in printed
    assert "accuracy 33.33 %" in printed
    assert run("predict", "./turned", CHECKPOINT) == 0
    with open("run/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows if "cat" in row["key"]} == {"2"}
    assert {row["predicted"] for row in rows if "cat" in row["key"]} == {"0"}
    assert list(rows[0])[-3:] == ["p_cat", "p_dog", "p_fox"]


def test_a_name_that_stands_for_two_classes_is_matched_only_where_nothing_moves():
    assert class_places(["crane", "owl", "crane"], ["crane", "owl", "crane"], "a", "b") == [0, 1, 2]
    with pytest.raises(ValueError, match="crane stands for several classes"):
        class_places(["crane", "owl", "crane"], ["owl", "crane"], "a", "b")
    with pytest.raises(ValueError, match="does not know: 0, 1; it knows cat, dog"):
        class_places(["cat", "dog"], ["0", "1"], "a", "b")
