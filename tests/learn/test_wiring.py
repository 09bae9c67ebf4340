"""What is wired to what: which split each number comes from, and whether each option reaches the run."""

from pathlib import Path

import pytest
import torch

from vitexp import cli
from vitexp.learn.command import TrainingCommand
from vitexp.record import read_record

TINY = [
    "--model.arch=micro/4", "--model.lr=0.003", "--data.batch_size=8", "--trainer.max_epochs=3", "--run.shots=[2]",
    "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--run.wandb=off",
]  # fmt: skip
WEIGHTS = "weights"


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """Fits on shards; gives every number of the record, each curve and the weights by name."""
    monkeypatch.chdir(tmp_path)

    def run(shards, *words):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        status = cli.main(["fit", *TINY, f"--data.shards={shards}", f"--run.dir={folder}", *words])
        assert status == 0
        record = read_record(folder)
        curves = {f"curve of {name}": points for name, points in record.curves.items()}
        return record.metrics | curves | {WEIGHTS: weights(folder / "checkpoints" / "last.ckpt")}

    return run


def weights(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value.tolist() for name, value in state.items()}


def changed(one, other):
    """The names of what differs between two outcomes."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


VAL = {"val_acc", "val_loss", "curve of val_acc", "curve of val_loss"}
TEST = {"test_acc", "test_loss", "fewshot_2"}


def test_each_number_comes_from_its_own_split(outcome, colours):
    """Wrong labels in one split change what is measured on that split, and nothing else."""
    right = outcome(colours())
    assert min(right["val_acc"], right["test_acc"], right["fewshot_2"]) > 0.9
    assert changed(right, outcome(colours("test"))) == TEST
    assert changed(right, outcome(colours("val"))) == VAL
    assert changed(right, outcome(colours("train"))) == {*VAL, *TEST, "curve of train_loss", WEIGHTS}


def test_the_verbs_measure_their_own_split(outcome, colours, tmp_path):
    """Also from a checkpoint that is given, on shards whose other split is mislabelled."""
    right = outcome(colours())
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    for verb, wrong, name in (("validate", "test", "val_acc"), ("test", "val", "test_acc")):
        words = [verb, *TINY, f"--data.shards={colours(wrong)}", f"--ckpt_path={checkpoint}", f"--run.dir={tmp_path}"]
        measured = TrainingCommand(words, cli.groups()).trainer.callback_metrics
        assert {key: float(value) for key, value in measured.items()} == pytest.approx(
            {key: right[key] for key in (name, name.replace("acc", "loss"))}
        )


def test_fewshot_draws_from_train_and_measures_on_test(outcome, colours, tmp_path, capsys):
    outcome(colours())
    checkpoint = next(tmp_path.rglob("last.ckpt"))

    def accuracy(wrong):
        assert cli.main(["fewshot", str(checkpoint), f"--data={colours(wrong)}", "--shots=2", "--csv=shots.csv"]) == 0
        draws = Path("shots.csv").read_text().splitlines()[1:]
        return [float(draw.split(",")[-1]) for draw in draws]

    assert accuracy(None) == accuracy("val") == [1.0] * 3
    assert accuracy("test") == [0.0] * 3
    assert 0.0 < sum(accuracy("train")) < 3.0
