"""Two ranks that are both told to end, at any moment: none of them waits for the other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitexp.record import read_record


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
        assert run.wait(timeout=600) == 128 + signal.SIGTERM, run.stderr.read().decode()
        assert read_record(tmp_path / "run").reason.startswith("ended by SIGTERM in step ")
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
    until = time.monotonic() + 600
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
