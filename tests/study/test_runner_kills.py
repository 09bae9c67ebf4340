"""Real signals: what a killed or a second runner leaves to the next one."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from vitexp.study import lock


def value(*choices):
    return {"values": list(choices)}


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_kill_9_of_the_runner_ends_its_workers_and_loses_only_cells_in_flight(study, tmp_path, ground):
    made = study(seeds=range(3), **{"model.trouble": value("none", "waits")})
    runner = ground.start(made)
    wait_for(lambda: ground.statuses() == ["finished"] * 3 + ["running"] * 2)
    workers = ground.pids()
    runner.end(signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in workers), 5.0)
    assert ground.statuses() == ["finished"] * 3 + ["running"] * 2
    (tmp_path / "go").touch()
    status, said = ground.start(made, 3).end()
    assert status == 0, said
    assert "3 finished before, 3 to train" in said
    assert (ground.statuses(), sorted(ground.trainings())) == (["finished"] * 6, [1, 1, 1, 1, 2, 2])


def test_kill_9_of_a_worker_fails_its_cell_and_no_other(study, tmp_path, ground):
    made = study(seeds=range(3), **{"model.trouble": value("waits")})
    runner = ground.start(made)
    wait_for(lambda: ground.statuses() == ["running"] * 2)
    os.kill(ground.pids()[0], signal.SIGKILL)
    (tmp_path / "go").touch()
    status, said = runner.end()
    assert status == 1
    assert "killed by signal 9 (SIGKILL)" in said
    assert ground.statuses() == ["failed", "finished", "finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_ends_its_workers_and_goes_on_later(study, run, tmp_path, number, ground):
    made = study(seeds=(0, 1), **{"model.trouble": value("none", "waits")})
    runner = ground.start(made)
    wait_for(lambda: ground.statuses() == ["finished"] * 2 + ["running"] * 2)
    status, said = runner.end(number)
    assert (status, "Traceback" in said) == (130, False)
    assert "2 of 4 cells finished, 4 started now; stopped; run it again to go on" in said
    assert all(gone(pid) for pid in ground.pids())
    assert ground.statuses() == ["finished"] * 2 + ["running"] * 2
    (tmp_path / "go").touch()
    outcome, _ = run(made)
    assert (outcome.finished, outcome.started, outcome.exit_status) == (4, 2, 0)


def test_two_runners_share_the_cells_and_train_none_twice(study, ground):
    made = study(seeds=range(6), **{"model.seconds": value(0.2)})
    runners = [ground.start(made), ground.start(made)]
    for runner in runners:
        status, said = runner.end()
        assert status == 0, said
        assert "6 of 6 cells finished" in said
    assert ground.trainings() == [1] * 6


def test_runners_on_two_machines_without_a_shared_flock_train_none_twice(study, ground):
    made = study(seeds=range(6), **{"model.seconds": value(0.2)})
    runners = [ground.start(made, machine=name) for name in ("node1", "node2")]
    said = [runner.end() for runner in runners]
    assert [status for status, _ in said] == [0, 0], said
    assert all("6 of 6 cells finished" in text for _, text in said)
    assert any("in the hands of process" in text for _, text in said)
    assert ground.trainings() == [1] * 6


def test_a_cell_held_by_another_runner_is_waited_for(study, run, tmp_path, ground):
    made = study(seeds=(0,), **{"model.trouble": value("waits")})
    other = ground.start(made)
    wait_for(lambda: ground.statuses() == ["running"])
    threading.Timer(1.0, (tmp_path / "go").touch).start()
    outcome, _ = run(made)
    other.end()
    assert (outcome.finished, outcome.started, ground.trainings()) == (1, 0, [1])


def test_a_cell_left_behind_by_another_runner_is_taken_up(study, run, tmp_path, ground):
    made = study(seeds=(0,), **{"model.trouble": value("waits")})
    other = ground.start(made)
    wait_for(lambda: ground.statuses() == ["running"])
    assert [lock.is_held(folder) for folder in ground.folders()] == [True]
    threading.Timer(1.0, other.process.kill).start()
    threading.Timer(1.5, (tmp_path / "go").touch).start()
    outcome, _ = run(made)
    other.end()
    assert (outcome.finished, outcome.started, ground.trainings()) == (1, 1, [2])
