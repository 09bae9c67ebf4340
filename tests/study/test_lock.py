"""Locks between real processes; another machine is a process with another boot id for which flock does nothing, which
is what a network folder without shared flocks looks like."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitexp.study.run import lock

ELSEWHERE = (
    "import fcntl, uuid; from vitexp.study.run import lock; boot = str(uuid.uuid4()); fcntl.flock = lambda *_: None; "
)
ELSEWHERE += "lock.boot_id = lambda: boot; lock.platform.node = lambda: 'node7'; lock.BEAT_SECONDS = 0.1; "
HOLD = "held = lock.acquire({!r}, lambda: print('lost', flush=True)); "
HOLD += "print(held is not None, flush=True); input()"


@pytest.fixture
def process():
    """Starts processes that run a line of Python and say whether they hold the lock."""
    started = []

    def start(code):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", code], **pipes))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def holder(process, folder, where=""):
    one = process((where or "from vitexp.study.run import lock; ") + HOLD.format(str(folder)))
    assert one.stdout.readline().strip() == "True"
    return one


def age(folder):
    """As if the holder had last been heard of an hour ago; gives that time."""
    then = (folder / lock.HOLDER_NAME).stat().st_mtime - 3600
    os.utime(folder / lock.HOLDER_NAME, (then, then))
    return then


def test_one_process_holds_a_directory_until_it_dies(process, tmp_path):
    other = holder(process, tmp_path)
    assert lock.is_held(tmp_path)
    assert lock.acquire(tmp_path) is None
    assert lock.owner_of(tmp_path).pid == other.pid
    other.kill()
    other.communicate()
    assert not lock.is_held(tmp_path)
    mine = lock.acquire(tmp_path)
    assert (mine.owner.pid, mine.broken) == (os.getpid(), "")
    mine.release()
    assert lock.owner_of(tmp_path) is None


def test_asking_about_a_lock_leaves_nothing_behind(tmp_path):
    assert not lock.is_held(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_holds_without_a_shared_flock(process, tmp_path):
    holder(process, tmp_path, ELSEWHERE)
    assert lock.is_held(tmp_path)
    assert lock.acquire(tmp_path) is None


def test_a_silent_lock_of_another_machine_is_broken_late_and_not_silently(process, tmp_path):
    other = holder(process, tmp_path, ELSEWHERE)
    other.kill()
    other.communicate()
    assert lock.is_held(tmp_path)  # a dead process there cannot be told from one that is cut off
    age(tmp_path)
    assert not lock.is_held(tmp_path)
    mine = lock.acquire(tmp_path)
    said = rf"took over from process {other.pid} on node7, which has been silent for 36\d\d s"
    assert re.fullmatch(said, mine.broken)
    mine.release()
    assert [path.name for path in tmp_path.iterdir()] == [lock.LOCK_NAME]


@pytest.mark.parametrize("ahead", [5.0, 1e6])
def test_a_holder_from_the_future_does_not_hold_for_ever(tmp_path, monkeypatch, ahead):
    holder_file = tmp_path / lock.HOLDER_NAME
    (tmp_path / lock.LOCK_NAME).touch()
    holder_file.write_text('{"boot": "b", "host": "node7", "pid": 9, "token": "t"}')
    stamp = holder_file.stat().st_mtime + ahead
    os.utime(holder_file, (stamp, stamp))
    assert lock.is_held(tmp_path)  # its owner may be alive: the clock may have been set back
    assert lock.acquire(tmp_path) is None
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.0)
    mine = lock.acquire(tmp_path)
    assert "process 9 on node7, which has been silent" in mine.broken
    mine.release()


def test_a_beating_lock_is_never_broken(process, tmp_path):
    holder(process, tmp_path, ELSEWHERE)
    aged = age(tmp_path)
    while (tmp_path / lock.HOLDER_NAME).stat().st_mtime <= aged:
        time.sleep(0.01)
    assert lock.acquire(tmp_path) is None


def test_a_holder_that_stood_still_learns_of_its_loss(process, tmp_path):
    other = holder(process, tmp_path, ELSEWHERE)
    other.send_signal(signal.SIGSTOP)
    os.waitpid(other.pid, os.WUNTRACED)
    age(tmp_path)
    mine = lock.acquire(tmp_path)
    assert mine is not None
    other.send_signal(signal.SIGCONT)
    assert other.stdout.readline() == "lost\n"
    assert lock.owner_of(tmp_path) == mine.owner
    mine.release()


@pytest.mark.parametrize("left", ["", '{"boot": "half', '{"boot": "b", "host": "h", "pid": 1, "token": "t"}'])
def test_of_many_machines_one_gets_the_lock(process, tmp_path, left):
    if left:
        (tmp_path / lock.HOLDER_NAME).write_text(left)
        os.utime(tmp_path / lock.HOLDER_NAME, (1, 1))
    code = (
        f"print('ready', flush=True); input(); print(lock.acquire({str(tmp_path)!r}) is not None, flush=True); input()"
    )
    machines = [process(ELSEWHERE + code) for _ in range(6)]
    assert {machine.stdout.readline() for machine in machines} == {"ready\n"}
    for machine in machines:
        machine.stdin.write("\n")
        machine.stdin.flush()
    assert sorted(machine.stdout.readline() for machine in machines) == ["False\n"] * 5 + ["True\n"]


def test_a_lock_taken_since_we_looked_is_put_back(tmp_path):
    path = tmp_path / lock.HOLDER_NAME
    dead, alive = (lock.Owner("b", "h", pid, "t") for pid in (1, 2))
    assert lock._take(path, alive, None)
    assert not lock._take(path, lock.Owner("c", "h", 3, "t"), dead)
    assert lock.owner_of(tmp_path) == alive
    assert [path.name for path in tmp_path.iterdir()] == [lock.HOLDER_NAME]


def test_a_file_system_without_locks_is_refused_in_one_sentence(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(
        ValueError, match=r"lies on a file system without file locks \(Operation not supported\); mount"
    ):
        lock.acquire(tmp_path)


def test_the_boot_is_that_of_the_kernel():
    assert lock.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
