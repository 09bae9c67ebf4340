"""While arms are tuned, nobody sees what candidates reach on the test images: it is in the record, for the choice."""

import csv
from pathlib import Path

import pytest

from vitexp.record import read_record
from vitexp.train.session import WITHHELD

TINY = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.enable_progress_bar=false", "--run.wandb=off"]
SHORT = ["--trainer.accelerator=cpu", "--run.dir=run", "--run.shots=[5]", "--trainer.max_steps=3"]
WHOLE = ["--data.val_fraction=0.1", "--trainer.log_every_n_steps=1"]


@pytest.fixture
def fit(door, capsys):
    """Trains a short run; gives what it has printed, and the columns of its CSV log."""

    def run(*words):
        assert door("fit", *TINY, *SHORT, *WHOLE, *words) == 0
        names = set()
        for path in Path("run").glob("metrics/*/metrics.csv"):
            with path.open(newline="") as file:
                names |= set(csv.DictReader(file).fieldnames)
        said = capsys.readouterr()
        return said.out + said.err, names

    return run


def of_test(names):
    return {name for name in names if "test" in name or "fewshot" in name}


def test_a_candidate_shows_no_test_number_and_says_where_they_are(fit):
    said, columns = fit("--study.tune=[model.lr]")
    assert {"test_acc", "test_loss", "fewshot_5", "val_acc"} < read_record("run").metrics.keys()
    assert {"val_acc", "train_loss", "data_size"} < columns
    assert not of_test(columns)
    again, _ = fit("--study.tune=[model.lr]")
    assert "Finished already" in again
    for text in (said, again):
        (line,) = [line for line in text.splitlines() if line.startswith("test ")]
        assert line == f"test        {WITHHELD}"
        assert "shot" not in text
        assert "val         accuracy" in text


def test_a_run_of_a_study_that_tunes_nothing_shows_them(fit):
    said, columns = fit()
    assert of_test(columns) == {"test_acc", "test_loss", "fewshot_5"}
    assert "test        accuracy" in said
    assert "5-shot      accuracy" in said
    assert WITHHELD not in said
    hidden, _ = fit("--study.tune=[model.lr]")
    assert "test        accuracy" not in hidden, "the study has come to tune since"
