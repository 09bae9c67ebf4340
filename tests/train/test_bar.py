"""The bar shows the epochs and batches that a run takes."""

import pytest

from vitexp.train import terminal
from vitexp.train.terminal import Bar

TINY = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.accelerator=cpu", "--run.wandb=off"]  # 7 batches


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--trainer.max_epochs=-1", "--trainer.max_steps=10"], [("Epoch 0/1", 7), ("Epoch 1/1", 3)]),
        (["--trainer.max_epochs=5", "--trainer.max_steps=3"], [("Epoch 0/0", 3)]),
        (
            ["--trainer.max_epochs=-1", "--trainer.max_steps=5", "--trainer.accumulate_grad_batches=2"],
            [("Epoch 0/1", 7), ("Epoch 1/1", 2)],
        ),
    ],
    ids=["steps", "both", "gradients added up"],
)
def test_the_bar_counts_what_a_run_of_steps_takes(door, monkeypatch, words, shown):
    seen, describe = [], Bar._get_train_description

    def noted(bar, epoch):
        words = describe(bar, epoch)
        seen.append((words.strip(), bar.total_train_batches))
        return words

    monkeypatch.setattr(Bar, "_get_train_description", noted)
    assert door("fit", *TINY, *words, "--run.dir=run", "--run.shots=[]", "--run.test=false") == 0
    assert seen == shown


@pytest.mark.parametrize(("words", "ends"), [(["--trainer.max_epochs=2"], [8, 8]), (["--trainer.max_steps=3"], [3])])
def test_a_bar_that_moves_seldom_ends_where_the_epoch_does(door, monkeypatch, words, ends):
    monkeypatch.setattr(terminal, "_SECONDS", 1e9)
    seen, moves = [], []
    ended, moved = Bar.on_train_epoch_end, Bar._update

    def noted(bar, *arguments):
        ended(bar, *arguments)
        seen.append(bar.progress.tasks[bar.train_progress_bar_id].completed)

    monkeypatch.setattr(Bar, "on_train_epoch_end", noted)
    monkeypatch.setattr(Bar, "_update", lambda bar, *given, **more: (moves.append(given), moved(bar, *given, **more)))
    more = ["--run.dir=run", "--run.shots=[]", "--run.test=false", "--data.val_fraction=0"]
    assert door("fit", *TINY, *words, *more) == 0
    assert seen == ends
    assert len(moves) == 3 * len(ends) - (ends == [3])  # the first and the last batch, and the end of the epoch
