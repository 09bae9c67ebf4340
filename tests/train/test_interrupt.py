"""Ctrl-C and SIGTERM at any moment: a run ends after a whole step and goes on from there to the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vitexp import cli, metrics
from vitexp.record import read_record
from vitexp.train.module import Classifier

TINY = [
    "--model.arch=micro/4", "--data.batch_size=200", "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu", "--run.wandb=off", "--run.shots=[]", "--model.dropout=0.1",
]  # fmt: skip


@pytest.fixture
def fit(door):
    """Runs `vitexp fit` for 14 steps in a folder; gives its exit status."""
    return lambda folder, *words: door("fit", *TINY, f"--run.dir={folder}", *words)


@pytest.fixture
def sends(monkeypatch):
    """Lets this process send itself a signal in a method of the network, at a step."""

    def send(method, signum, step, times=1):
        original, left = getattr(Classifier, method), [signum] * times

        def with_signal(module, batch, index):
            while module.global_step == step and left:
                os.kill(os.getpid(), left.pop())
            return original(module, batch, index)

        monkeypatch.setattr(Classifier, method, with_signal)
        return lambda: monkeypatch.setattr(Classifier, method, original)

    return send


def weights(folder):
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("method", "signum", "at", "step", "more"),
    [
        ("training_step", signal.SIGINT, 3, 4, ()),
        ("training_step", signal.SIGTERM, 6, 7, ()),  # the last batch of an epoch, which a validation follows
        ("validation_step", signal.SIGINT, 7, 7, ()),
        ("training_step", signal.SIGINT, 1, 2, ("--trainer.accumulate_grad_batches=2",)),  # 4 steps an epoch
        ("training_step", signal.SIGTERM, 9, 10, ("--trainer.val_check_interval=3",)),
    ],
    ids=["in an epoch", "at its end", "in a validation", "with gradients held", "before a validation"],
)
def test_a_signal_ends_a_run_after_a_whole_step_with_a_checkpoint(fit, sends, capsys, method, signum, at, step, more):
    before = signal.getsignal(signum)
    assert fit("whole", *more) == 0
    restore = sends(method, signum, at)
    assert fit("cut", *more) == 128 + signum
    record, planned = read_record("cut"), read_record("whole").steps
    how = "interrupted" if signum == signal.SIGINT else "ended by SIGTERM"
    assert (record.status, record.steps, record.planned_steps) == ("stopped", step, planned)
    assert record.reason == f"{how} after step {step} of {planned}; --ckpt_path last goes on from there"
    assert f"vitexp: {record.reason}\n" in capsys.readouterr().err
    restore()
    assert fit("cut", "--ckpt_path=last", *more) == 0
    assert all(torch.equal(one, weights("cut")[name]) for name, one in weights("whole").items())
    assert read_record("cut").curves == read_record("whole").curves
    assert read_record("cut").metrics == read_record("whole").metrics
    assert signal.getsignal(signum) == before


def test_a_second_ctrl_c_ends_at_once(fit, sends):
    sends("training_step", signal.SIGINT, 3, times=2)
    assert fit("cut") == 130
    assert read_record("cut").reason == "interrupted after step 3 of 14; it left no checkpoint"
    assert not list(Path("cut/checkpoints").iterdir())


def test_a_run_cut_off_in_its_test_keeps_what_it_knows_and_needs_no_step_more(fit, sends):
    restore = sends("test_step", signal.SIGTERM, 14)
    assert fit("cut") == 143
    record = read_record("cut")
    assert (record.status, record.steps) == ("stopped", 14)
    assert {metrics.split_of(name) for name in record.metrics} == {"val"}
    assert record.reason.endswith("before all was measured; --ckpt_path last goes on from there")
    restore()
    sends("training_step", signal.SIGINT, 14)
    assert fit("cut", "--ckpt_path=last") == 0
    assert {metrics.split_of(name) for name in read_record("cut").metrics} == {"val", "test"}


def test_a_run_cut_off_before_its_first_step_says_so(fit, sends, monkeypatch):
    monkeypatch.setattr(Classifier, "configure_optimizers", lambda module: os.kill(os.getpid(), signal.SIGINT))
    assert fit("cut") == 130
    assert read_record("cut").reason == "interrupted before the first step; it left no checkpoint"


def test_a_run_that_begins_anew_keeps_the_checkpoint_of_the_one_before(fit, sends, capsys):
    last, kept = Path("cut/checkpoints/last.ckpt"), []
    for step in (3, 1, 2):
        sends("training_step", signal.SIGINT, step)
        assert fit("cut") == 130
        kept.append(last.read_bytes())
    told = capsys.readouterr().out
    assert "an unfinished run lies here, stopped after step 4 of 14; this one does not continue it" in told
    for number in (1, 2):
        earlier = last.with_name(f"earlier-{number}.ckpt")
        assert f"its checkpoint is kept as {earlier}" in told
        assert earlier.read_bytes() == kept[number - 1]


def test_two_runs_never_share_a_folder(fit, sends, capsys, monkeypatch):
    step, inner = Classifier.training_step, []

    def beside(module, batch, index):
        if not inner:
            inner.append(None)
            inner.append(fit("run"))
        return step(module, batch, index)

    monkeypatch.setattr(Classifier, "training_step", beside)
    assert fit("run") == 0
    assert inner[1] == cli.BAD_INPUT
    assert "another run is at work in run; wait for it, or give another --run.dir" in capsys.readouterr().err
    assert read_record("run").steps == 14


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.13, 0.37, 0.71])
def test_two_ranks_end_together_and_the_record_says_why(moment, digits, tmp_path):
    words = [
        "--model.arch=micro/4", "--data.batch_size=64", "--trainer.max_epochs=1000", "--trainer.accelerator=cpu",
        "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.enable_progress_bar=false", "--run.wandb=off",
        "--run.dir=run", "--run.checkpoint_steps=5", "--run.shots=[]", f"--data.shards={digits}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "vitexp.cli", "fit", *words]
    run = subprocess.Popen(command, cwd=tmp_path, env=os.environ, start_new_session=True, stderr=subprocess.PIPE)
    try:
        _wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", run)
        time.sleep(moment)
        os.killpg(run.pid, signal.SIGTERM)
        assert run.wait(timeout=90) == 128 + signal.SIGTERM, run.stderr.read().decode()
        assert read_record(tmp_path / "run").reason.startswith("ended by SIGTERM after step ")
        _gone(run.pid)
    finally:
        _kill(run.pid)
        run.wait()
        run.stderr.close()


def _wait_for(path: Path, run: subprocess.Popen) -> None:
    until = time.monotonic() + 600
    while not path.exists():
        assert run.poll() is None, run.stderr.read().decode()
        assert time.monotonic() < until, "no checkpoint was written"
        time.sleep(0.02)


def _gone(group: int) -> None:
    """No rank is left behind."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a rank is still there")


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
