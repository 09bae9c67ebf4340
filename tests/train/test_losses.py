"""The rows of the loggers stand at their step, at any length of an epoch."""

import csv
from pathlib import Path

import pytest

from vitexp.record import read_record
from vitexp.train.module import Classifier

EVERY, WARMUP, LR = 3, 4, 0.01
WORDS = [
    "--model.arch=micro/4", "--data.batch_size=200", "--data.train_images=500", "--trainer.max_epochs=4",
    f"--trainer.log_every_n_steps={EVERY}", f"--model.warmup_steps={WARMUP}", f"--model.lr={LR}",
    "--model.schedule=constant", "--run.shots=[]", "--run.wandb=off", "--run.dir=run",
    "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
]  # fmt: skip


def rows(folder="run"):
    found = []
    for path in sorted(Path(folder).glob("metrics/*/metrics.csv")):
        with path.open() as file:
            found += [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_row_is_about_its_step_also_where_epochs_are_short_and_across_a_resume(door, monkeypatch, accumulate):
    """Epochs of 3 batches, or of 2 steps: rows of every third step, cut off in the middle of an interval."""
    step, losses, cut = Classifier.training_step, {}, [7]

    def noted(module, batch, index):
        if cut and module.global_step == cut[0]:
            raise KeyboardInterrupt
        loss = step(module, batch, index)
        losses.setdefault(module.global_step, []).append((loss.item() * batch.total, batch.total))
        return loss

    monkeypatch.setattr(Classifier, "training_step", noted)
    words = [*WORDS, f"--trainer.accumulate_grad_batches={accumulate}", "--run.checkpoint_steps=1"]
    assert door("fit", *words) == 130
    cut.clear()
    assert door("fit", *words, "--ckpt_path=last") == 0
    record = read_record("run")
    means = {s: sum(loss for loss, _ in parts) / sum(images for _, images in parts) for s, parts in losses.items()}
    training = [row for row in rows() if "train_loss" in row]
    assert [row["step"] for row in training] == list(range(0, record.steps, EVERY))
    for row in training:
        assert row["train_loss"] == pytest.approx(means[row["step"]], rel=1e-6)
        assert row["lr"] == pytest.approx(LR * min(1, row["step"] / WARMUP))
        assert row["epoch"] == row["step"] // (record.steps / 4)
        assert row.get("images_per_second", 1.0) > 0
    assert all("images_per_second" in row for row in training[1:3])
    validated = [[row["step"], row["val_acc"]] for row in rows() if "val_acc" in row and "data_size" not in row]
    assert validated == [list(point) for point in record.curves["val_acc"]]
    tenth = record.steps // 10 or 1
    first, last = (sum(means[s] for s in part) / tenth for part in (range(tenth), range(record.steps)[-tenth:]))
    assert record.learning["train_loss_start"] == pytest.approx(first, rel=1e-6)
    assert record.learning["train_loss_end"] == pytest.approx(last, rel=1e-6)


def test_a_run_may_log_nothing(door):
    assert door("fit", *WORDS, "--trainer.log_every_n_steps=0", "--trainer.max_epochs=2") == 0
    assert not [row for row in rows() if "train_loss" in row]
