"""The paper's own sizes, really trained for one batch of a few images of the right shape."""

from pathlib import Path

import numpy as np
import pytest

from vitexp import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Images of noise: two to train on, two to validate and two to test by."""
    folder, draw = tmp_path_factory.mktemp("paper"), np.random.default_rng(0)
    arrays = {
        f"x_{split}": draw.integers(0, 256, (n, 224, 224, 3), np.uint8) for split, n in (("train", 4), ("test", 2))
    }
    np.savez(folder / "noise.npz", **arrays, y_train=np.arange(4) % 2, y_test=np.arange(2))
    assert cli.main(["shards", "make", str(folder / "noise.npz"), str(folder / "shards"), "--no-check"]) == 0
    return folder / "shards"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain_paper", "masked_paper", "finetune_paper"])
def test_an_experiment_of_the_papers_size_trains_a_batch(name, shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [f"--data.shards={shards}", "--data.batch_size=2", "--data.val_fraction=0.5", "--data.workers=0"]
    quiet = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert cli.main(["fit", "--config", str(ROOT / "experiments" / f"{name}.yaml"), *small, *quiet]) == 0
    assert not list(tmp_path.rglob("record.json")), "a trial leaves no record"
