"""The training door from end to end, on real shards, in this process."""

import csv
import json
from pathlib import Path

import pytest
import torch

from vitexp import cli, metrics
from vitexp.record import read_record
from vitexp.train.module import Classifier

EPOCHS = 2
TINY = ["--model.arch=micro/4", "--data.batch_size=200", f"--trainer.max_epochs={EPOCHS}", "--model.warmup_steps=2"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--run.wandb=off"]


@pytest.fixture
def fit(door):
    """Runs a verb in an empty folder; gives its exit status."""
    return lambda *words, verb="fit": door(verb, *TINY, *QUIET, "--run.dir=run", *words)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_leaves_a_true_record_and_says_where(fit, tmp_path, capsys):
    assert fit("--run.shots=[1,5]") == 0
    record = read_record("run")
    assert record.status == "finished"
    assert record.images_seen == EPOCHS * record.data["train_images"] == EPOCHS * 1294
    assert record.steps == EPOCHS * 7
    assert set(record.metrics) >= {"val_acc", "val_loss", "test_acc", "test_loss", "fewshot_1", "fewshot_5"}
    assert all(metrics.find(name) for name in record.metrics)
    assert [step for step, _ in record.curves["val_acc"]] == [7, 14]
    assert record.curves["val_acc"][-1][1] == pytest.approx(record.metrics["val_acc"])
    assert record.config["model"]["stem"] == "patch"
    told = capsys.readouterr().out
    assert "run/record.json" in told
    assert "run/checkpoints/last.ckpt" in told
    assert f"{100 * record.metrics['test_acc']:.2f} %" in told


def test_the_test_accuracy_is_the_checkpoints_own(fit, digits):
    """The recorded accuracy, counted again by hand from predictions.csv."""
    assert fit() == 0
    assert fit(verb="predict") == 0
    with open("run/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(359))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(read_record("run").metrics["test_acc"])


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_images(fit, monkeypatch):
    """By hand, also across an interruption."""
    losses, step = [], Classifier.training_step

    def noted(module, batch, index):
        loss = step(module, batch, index)
        losses.append((loss.item() * batch.total, batch.total))
        if len(losses) == 10 and cutting:
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(Classifier, "training_step", noted)
    cutting = True
    assert fit("--run.checkpoint_steps=9") == 130
    cutting = False
    assert fit("--run.checkpoint_steps=9", "--ckpt_path=last") == 0
    steps = losses[:9] + losses[10:]
    means = [sum(a for a, _ in part) / sum(b for _, b in part) for part in (steps[:7], steps[7:])]
    assert len(steps) == 14
    assert [value for _, value in read_record("run").curves["train_loss"]] == pytest.approx(means, rel=1e-6)


def test_mixed_training_is_another_training_and_kept_in_the_config(fit):
    assert fit("--data.mix=mixup_cutmix", "--data.eval_view=crop", "--trainer.max_steps=3") == 0
    record = read_record("run")
    assert (record.config["data"]["mix"], record.config["data"]["eval_view"]) == ("mixup_cutmix", "crop")
    assert fit("--data.eval_view=crop", "--trainer.max_steps=3", "--run.dir=plain") == 0
    assert read_record("plain").metrics["val_loss"] != record.metrics["val_loss"]


def test_a_finished_run_is_not_trained_again(fit, capsys):
    assert fit() == 0
    before = (read_record("run"), capsys.readouterr())[0]
    assert fit() == 0
    assert read_record("run") == before
    assert "Finished already" in capsys.readouterr().out


def test_a_folder_of_another_config_is_left_alone(fit, capsys):
    assert fit() == 0
    before = read_record("run")
    files = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    assert fit("--model.lr=0.5", "--run.wandb=offline") == cli.BAD_INPUT
    assert "holds a run of another config" in capsys.readouterr().err
    assert read_record("run") == before
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == files


DRAWS = ["--model.drop_path=0.3", "--model.patch_dropout=0.3"]
"""What draws in each step; dropout does in test_interrupt.py."""


def test_an_interrupted_run_resumes_to_the_same_bits(fit, monkeypatch):
    whole = ["--run.dir=whole", *DRAWS]
    assert fit(*whole) == 0
    step = Classifier.training_step

    def cut(module, batch, index):
        if module.global_step == 9:
            raise KeyboardInterrupt
        return step(module, batch, index)

    cuttable = ["--run.dir=cut", *DRAWS, "--run.checkpoint_steps=4"]
    monkeypatch.setattr(Classifier, "training_step", cut)
    assert fit(*cuttable) == 130
    record = read_record("cut")
    assert (record.status, record.steps, record.planned_steps) == ("stopped", 9, 14)
    assert record.reason == "interrupted after step 9 of 14; --ckpt_path last goes on from an earlier checkpoint"
    monkeypatch.setattr(Classifier, "training_step", step)
    assert fit(*cuttable, "--ckpt_path=last") == 0
    one, other = weights("whole/checkpoints/last.ckpt"), weights("cut/checkpoints/last.ckpt")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_record("cut").images_seen == read_record("whole").images_seen
    assert read_record("cut").metrics == read_record("whole").metrics


def test_a_run_cut_off_in_a_validation_makes_it_good(fit, monkeypatch):
    """The numbers of every epoch are in the record, also of the one whose last batch was the last thing done."""
    assert fit("--run.dir=whole") == 0
    step = Classifier.validation_step

    def cut(module, batch, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "validation_step", cut)
    assert fit("--run.dir=cut", "--run.checkpoint_steps=1") == 130
    monkeypatch.setattr(Classifier, "validation_step", step)
    assert fit("--run.dir=cut", "--run.checkpoint_steps=1", "--ckpt_path=last") == 0
    assert read_record("cut").curves == read_record("whole").curves
    assert read_record("cut").metrics == read_record("whole").metrics


def test_a_number_that_is_none_stops_the_run_and_the_record_says_so(fit, capsys):
    assert fit("--model.lr=1.0e30", "--model.optimizer=sgd", "--model.warmup_steps=0") == 1
    record = read_record("run")
    assert record.status == "failed"
    assert "norm became" in record.reason
    assert "lower model.lr" in capsys.readouterr().err


def test_nothing_is_measured_on_fresh_weights(fit, capsys):
    assert fit(verb="test") == cli.BAD_INPUT
    assert "no trained weights: no run/checkpoints/last.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model.pos_embed=3d"], "--model.pos_embed is '3d'; allowed: none, 1d, 2d, relative"),
        (["--model.pos-embed=2d"], "did you mean --model.pos_embed"),
        (["--model.arch=micro/3"], "3"),
        (["--model.pos_embed=none", "--model.pos_at=every"], "every"),
        (["--model.warmup_steps=500"], "whole run has 14 steps"),
        (["--trainer.gradient_clip_val=1.0"], "model.clip_norm"),
        (["--data.shards=./absent"], "absent"),
        (["--data.train_images=100000"], "1294"),
        (["--config=absent.yaml"], "absent.yaml"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(fit, capsys, words, told):
    assert fit(*words) == cli.BAD_INPUT
    error = capsys.readouterr().err
    error = error if error.startswith("vitexp: ") else error.partition("\n")[2]  # after what the data give
    assert error.startswith("vitexp: ")
    assert told in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_the_printed_config_is_one_that_fit_takes(fit, capsys, tmp_path):
    assert fit("--print_config") == 0
    text = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(text)
    assert "pos_embed: 1d" in text
    assert fit("--config=printed.yaml", "--model.pool=gap") == 0
    assert read_record("run").config["model"]["pool"] == "gap"


def test_later_configs_and_flags_win(fit, tmp_path):
    (tmp_path / "one.yaml").write_text("model: {pool: gap, lr: 0.5}\n")
    (tmp_path / "two.json").write_text(json.dumps({"model.lr": 0.25, "data.train_images": None}))
    assert fit("--config=one.yaml", "--config=two.json", "--model.pos_embed=none") == 0
    model = read_record("run").config["model"]
    assert (model["pool"], model["lr"], model["pos_embed"]) == ("gap", 0.25, "none")
