"""The bar shows the epochs and batches that a run takes."""

import re
from types import SimpleNamespace

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


def test_the_bar_says_how_far_a_run_of_steps_is_and_what_the_last_batch_gave(door, monkeypatch):
    """On a clock by which each batch takes two seconds and a validation none."""
    clock, seen = [0.0], []
    take, metrics = Bar.on_train_batch_end, Bar.get_metrics

    def took(bar, *given):
        clock[0] += 2
        take(bar, *given)

    def noted(bar, trainer, module):
        shown = metrics(bar, trainer, module)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        seen.append((trainer.global_step, float(shown["lr"]) == pytest.approx(rate, rel=0.06), shown))
        return shown

    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(Bar, "on_train_batch_end", took)
    monkeypatch.setattr(Bar, "get_metrics", noted)
    more = ["--trainer.max_epochs=-1", "--trainer.max_steps=40", "--run.dir=run", "--run.shots=[]", "--run.test=false"]
    assert door("fit", *TINY, *more) == 0
    assert {step for step, _, _ in seen} == set(range(1, 41))
    assert all(right for _, right, _ in seen)
    for step, _, shown in seen:
        assert (shown["run"], shown["left"]) == (
            f"{step / 40:.0%}",
            f"0:{(80 - 2 * step) // 60:02d}:{(80 - 2 * step) % 60:02d}",
        )
        assert "v_num" not in shown
    # 200 images in two seconds; the last batch of an epoch of 1,294 has 94, so that six take 1,094 in twelve
    by_step = {step: shown["images/s"] for step, _, shown in seen}
    assert [by_step[step] for step in (1, 2, 6, 7, 9)] == ["-", "100", "100", "91", "100"]
    assert 0 < seen[-1][2]["loss"] < seen[0][2]["loss"] < 2.5  # it learns


COLOUR = {"FORCE_COLOR": "1"}  # takes a pipe for a terminal


@pytest.mark.parametrize(("words", "coloured"), [({}, False), (COLOUR, True), (COLOUR | {"NO_COLOR": "1"}, False)])
def test_there_is_colour_on_a_terminal_only_and_none_with_no_color(door, capsys, monkeypatch, words, coloured):
    for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", **words}.items():
        monkeypatch.setenv(name, value)
    assert door("fit", *TINY, "--trainer.max_steps=2", "--run.dir=run", "--run.shots=[]", "--run.test=false") == 0
    said = capsys.readouterr().out
    assert "Epoch 0/0" in said
    assert bool(re.search(r"\x1b\[(\d+;)*(3[0-8]|9[0-7])[;m]", said)) == coloured


def test_a_run_says_where_and_how_exactly_it_computes(door, capsys):
    more = ["--trainer.max_steps=1", "--trainer.precision=bf16-mixed", "--run.dir=run", "--run.shots=[]"]
    assert door("fit", *TINY, *more, "--run.test=false") == 0
    assert re.search(r"1 steps, 1 thread of the CPU, precision bf16-mixed\n", capsys.readouterr().out)
