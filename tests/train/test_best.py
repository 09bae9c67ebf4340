"""Early stopping: the best validated weights are what is measured and kept, also across an interruption."""

import pytest
import torch

from vitexp import cli
from vitexp.record import read_record
from vitexp.train.module import Classifier

WORDS = [
    "--model.arch=micro/4", "--data.batch_size=200", "--trainer.max_steps=14", "--model.lr=0.03", "--run.wandb=off",
    "--model.schedule=constant", "--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null",
    "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--run.shots=[]", "--run.checkpoint_steps=1",
]  # fmt: skip


@pytest.fixture
def fit(door):
    return lambda *words, verb="fit": door(verb, *WORDS, *words)


def kept(folder):
    return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_the_first_best_of_all_validations_is_kept(fit):
    assert fit("--run.dir=best", "--run.keep=best") == 0
    record = read_record("best")
    assert [step for step, _ in record.curves["val_acc"]] == list(range(2, 15, 2))
    step, value = max(record.curves["val_acc"], key=lambda point: (point[1], -point[0]))
    assert step < 14, "this test needs a run whose last validation is not its best"
    assert record.metrics["best_step"] == step
    assert record.metrics["val_acc"] == value
    assert fit("--run.dir=short", f"--trainer.max_steps={step}") == 0
    short = kept("short")
    assert all(torch.equal(short[name], value) for name, value in kept("best").items())
    assert record.metrics["test_acc"] == read_record("short").metrics["test_acc"]


@pytest.mark.parametrize("hook", ["training_step", "validation_step"])
def test_a_resumed_run_chooses_among_the_same(fit, monkeypatch, hook):
    more = ["--run.keep=best", "--model.polyak=0.8"]
    assert fit("--run.dir=whole", *more) == 0
    whole, calls = getattr(Classifier, hook), []

    def cut(module, batch, index):
        calls.append(module.global_step)
        if module.global_step == 8:
            raise KeyboardInterrupt
        return whole(module, batch, index)

    monkeypatch.setattr(Classifier, hook, cut)
    assert fit("--run.dir=cut", *more) == 130
    assert calls[-1] == 8
    monkeypatch.setattr(Classifier, hook, whole)
    assert fit("--run.dir=cut", *more, "--ckpt_path=last") == 0
    assert read_record("cut").curves["val_acc"] == read_record("whole").curves["val_acc"]
    assert read_record("cut").metrics == read_record("whole").metrics
    one, other = kept("whole"), kept("cut")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_validation_there_is_no_best(fit, capsys):
    assert fit("--run.dir=run", "--run.keep=best", "--data.val_fraction=0") == cli.BAD_INPUT
    assert "chooses by validation images, and there are none" in capsys.readouterr().err


def test_of_equals_the_first_is_kept(colours, door):
    words = [f"--data.shards={colours()}", "--data.batch_size=8", "--trainer.max_steps=6", "--model.lr=0"]
    assert door("fit", *WORDS, *words, "--run.dir=run", "--run.keep=best") == 0
    record = read_record("run")
    assert len({value for _, value in record.curves["val_acc"]}) == 1
    assert record.metrics["best_step"] == 2
