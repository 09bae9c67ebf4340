"""One set of digits and one door for the runs of this floor's tests."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vitexp import axes, cli, metrics, own
from vitexp.data.shards import write


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return write.make("digits", tmp_path_factory.mktemp("shards") / "digits")


@pytest.fixture
def door(digits, tmp_path, monkeypatch):
    """Runs a verb on the digits in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *words):
        try:
            return cli.main([verb, f"--data.shards={digits}", *words])
        except SystemExit as error:
            return error.code

    return run


EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()


@pytest.fixture
def forget():
    """Forgets the user's files, as a new process would begin."""

    def run():
        for name in ("ideas", "wrong", "aside"):
            sys.modules.pop(name, None)
        own.load.cache_clear()
        own._LOADED.clear()
        axes._LABELS.clear()
        metrics._LEARNED.clear()

    return run


@pytest.fixture
def ideas(tmp_path, monkeypatch, forget):
    """The example's file in the working folder, under another name; a new process each test."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas.py").write_text(EXAMPLE)
    yield tmp_path / "ideas.py"
    sys.path[:] = path
    forget()


COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
COUNTS = {"train": 24, "val": 12, "test": 15}


def _noisy_colours(splits, wrong):
    """Arrays of 8x8 images in three colours, with labels of the next class instead in the split `wrong`.

    In val and test that is all of them, so that a probe drawn from there would not notice; in train every second one,
    because a network learns permuted classes with the same loss.
    """
    draw = np.random.default_rng(0)
    for split, count in COUNTS.items():
        labels = np.arange(count) % 3
        noise = draw.integers(-60, 60, (count, 8, 8, 3))
        if split in splits:
            yield f"x_{split}", (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)
            moved = 0 if split != wrong else np.arange(count) % 2 if split == "train" else 1
            yield f"y_{split}", (labels + moved) % 3


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """Makes a small set of shards, the same but for the labels of one split: `colours(wrong="test")`."""
    made = {}

    def make(wrong=None, splits=tuple(COUNTS)):
        if (wrong, splits) not in made:
            folder = tmp_path_factory.mktemp("colours")
            np.savez(folder / "colours.npz", **dict(_noisy_colours(splits, wrong)))
            made[wrong, splits] = write.make(str(folder / "colours.npz"), folder / "shards", workers=1)
        return made[wrong, splits]

    return make
