"""A disk that is really full: a tmpfs of a few kilobytes, in a namespace of its own."""

import shutil
import subprocess
import sys

import pytest

from vitexp.record import read_record

FIT = (
    "fit --model.arch=micro/4 --data.batch_size=256 --trainer.max_epochs=1 --trainer.accelerator=cpu --run.wandb=off "
    "--trainer.enable_progress_bar=false --run.shots=[] --data.shards={shards} --run.dir={run}"
)
KILOBYTES = 64


def on_a_small_disk(disk, script):
    """Runs a shell script with a tmpfs at `disk`; the disk's files are copied to `disk`-after at its end."""
    mount = f"mount -t tmpfs -o size={KILOBYTES}k tmpfs {disk}"
    kept = f"{mount} && {{ {script}; }}; status=$?; cp -r {disk} {disk}-after; exit $status"
    return subprocess.run(["unshare", "-Urm", "sh", "-c", kept], capture_output=True, text=True, timeout=120)


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None or on_a_small_disk(folder, "true").returncode:
        pytest.skip("no user namespaces here, so no disk of a few kilobytes can be mounted")
    shutil.rmtree(f"{folder}-after")
    return folder


def test_a_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(disk, tmp_path):
    from vitexp.data.shards import write

    shards = write.make("digits", tmp_path / "digits")
    words = FIT.format(shards=shards, run=disk / "run")
    done = on_a_small_disk(disk, f"{sys.executable} -m vitexp.cli {words}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == f"vitexp: {disk}/run/checkpoints/last.ckpt: No space left on device"
    assert "Traceback" not in done.stderr
    left = disk.with_name("disk-after") / "run"
    assert not list((left / "checkpoints").iterdir())
    record = read_record(left)
    assert record.status == "failed"
    assert "No space left" in record.reason
