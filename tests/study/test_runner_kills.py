"""Real signals: what a killed or a second runner leaves to the next one."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from vitexp.study.run import lock
from vitexp.study.run.processes import LOST, LocalEngine
from vitexp.study.run.runner import MOST_LOSSES


def value(*choices):
    return {"values": list(choices)}


def wait_for(condition, seconds=300.0):
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


@pytest.mark.parametrize("victim", ["a worker", "the fork server", "the fork server and its resource tracker"])
def test_a_cell_whose_process_is_killed_goes_on_and_nobody_sees_a_traceback(study, tmp_path, ground, victim):
    made = study(seeds=range(3), **{"model.trouble": value("waits")})
    runner = ground.start(made)
    wait_for(lambda: ground.statuses() == ["running"] * 2)
    workers, server = ground.pids(), ground.server()
    trackers = [pid for pid in children_of(runner.process.pid) if pid != server] if "tracker" in victim else []
    for pid in [workers[0]] if victim == "a worker" else [*trackers, server]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: sum(ground.trainings()) == 2 + (1 if victim == "a worker" else 2) or runner.process.poll())
    (tmp_path / "go").touch()
    status, said = runner.end()
    assert (status, "Traceback" in said, "Warning" in said) == (0, False, False), said
    assert "its process was ended from outside; it goes on from its last checkpoint" in said
    assert (ground.statuses(), sum(ground.trainings())) == (["finished"] * 3, 4 if victim == "a worker" else 5)
    lines = [line for folder in ground.folders() for line in (folder / "trainings").read_text().splitlines()]
    assert [line.split()[1] for line in lines] == ["1"] * len(lines)  # threads, also after the server's second start
    assert sum(line.endswith("--ckpt_path last") for line in lines) == len(lines) - 3


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_interrupted_plan_ends_in_one_line_with_its_processes(study, ground, tmp_path):
    runner = ground.start(study(**{"model.trouble": value("parser waits")}))
    wait_for(lambda: list(tmp_path.glob("parser-*")))
    parsers = [int(path.name.removeprefix("parser-")) for path in tmp_path.glob("parser-*")]
    status, said = runner.end(signal.SIGINT)
    assert (status, said.splitlines()[1:]) == (130, ["vitexp: interrupted"])
    wait_for(lambda: all(gone(pid) for pid in parsers), 5.0)


def test_an_interrupted_study_lets_its_cells_save_and_goes_on_from_there(study, run, tmp_path, ground):
    made = study(seeds=(0,), **{"model.trouble": value("saves")})
    runner = ground.start(made)
    wait_for(lambda: ground.statuses() == ["running"])
    assert runner.end(signal.SIGINT)[0] == 130
    assert ground.statuses() == ["stopped"]
    (tmp_path / "go").touch()
    outcome, _ = run(made, resume=["--ckpt_path", "last"])
    assert (outcome.finished, ground.statuses()) == (1, ["finished"])
    assert (ground.folders()[0] / "trainings").read_text().endswith("--ckpt_path last\n")


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
    started = 0
    for runner in runners:
        status, said = runner.end()
        assert status == 0, said
        started += int(re.search(r"6 of 6 cells finished, (\d) started now", said)[1])
    assert (started, ground.trainings()) == (6, [1] * 6)


def test_runners_on_two_machines_without_a_shared_flock_train_none_twice(study, ground):
    made = study(seeds=range(6), **{"model.seconds": value(0.2)})
    runners = [ground.start(made, machine=name) for name in ("node1", "node2")]
    said = [runner.end() for runner in runners]
    assert [status for status, _ in said] == [0, 0], said
    assert all("6 of 6 cells finished" in text for _, text in said)
    assert any("in the hands of process" in text for _, text in said)
    assert ground.trainings() == [1] * 6


def test_a_silent_lock_of_another_machine_is_broken_and_told(study, run, ground):
    made = study(seeds=(0,), **{"model.trouble": value("exit 0 unfinished")})
    run(made)
    (folder,) = ground.folders()
    holder = folder / lock.HOLDER_NAME
    holder.write_text('{"boot": "b", "host": "node7", "pid": 9, "token": "t"}')
    os.utime(holder, (1, 1))
    run(made, retry=True)
    assert (
        (folder / "fit.log").read_text().startswith("vitexp: took over from process 9 on node7, which has been silent")
    )
    assert ground.trainings() == [2]


class Forgetful(LocalEngine):
    """Knows no more of a killed process than of one whose machine is gone."""

    def wait(self, seconds):
        return {cell: LOST if status < 0 else status for cell, status in super().wait(seconds).items()}


def test_a_cell_whose_worker_is_lost_is_run_again_but_not_for_ever(study, run, ground, trainer):
    made = study(seeds=(0,), **{"model.trouble": value("none", "killed")})
    engine = Forgetful(trainer.train, 2)
    outcome, said = run(made, engine=engine, resume=["--ckpt_path", "last"])
    assert outcome.failures[0].reason.startswith("its worker was lost with its machine or its parent process, several")
    assert said.count("trouble=killed: its process was ended from outside; it goes on") == MOST_LOSSES
    assert sorted(ground.trainings()) == [1, 1 + MOST_LOSSES]
    assert (outcome.finished, outcome.exit_status, ground.statuses()) == (1, 1, ["finished", "stopped"])


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
