"""Real processes, real locks, real signals; only the training itself is a sleep (trainer.py)."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from vitexp.record import read_record
from vitexp.study import lock
from vitexp.study.plan import read_plan
from vitexp.study.progress import Progress
from vitexp.study.runner import run_study
from vitexp.study.spec import read_study

HERE = Path(__file__).parent
COMMAND = ["${env}", "vitexp", "fit", "--config", "${args_json_file}"]


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import trainer

    return trainer


@pytest.fixture
def study(tmp_path):
    def make(seeds=(0, 1), **parameters):
        grid = {"study.name": {"value": "s"}, "seed_everything": {"values": list(seeds)}} | parameters
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"method": "grid", "command": COMMAND, "parameters": grid}))
        return read_study(path)

    return make


@pytest.fixture
def run(trainer, tmp_path):
    def start(study, workers=2, **options):
        said = io.StringIO()
        outcome = run_study(
            study,
            parse=trainer.parse,
            train=trainer.train,
            root=tmp_path,
            workers=workers,
            extra=["--run.root", str(tmp_path)],
            preload=["vitexp.record"],
            progress=Progress(study.name, Console(file=said, width=200)),
            **options,
        )
        return outcome, said.getvalue()

    return start


def value(*choices):
    return {"values": list(choices)}


def folders(root):
    return sorted(path.parent for path in root.rglob("trainings"))


def trainings(root):
    return [len((folder / "trainings").read_text().splitlines()) for folder in folders(root)]


def test_every_cell_is_trained_once_and_then_never_again(study, run, tmp_path):
    made = study(**{"model.lr": value(0.1, 0.2)})
    outcome, said = run(made)
    assert (outcome.finished, outcome.started, outcome.exit_status) == (4, 4, 0)
    assert said.startswith("s: parsing 4 cells before anything trains\ns: 4 cells, 4 to train on 2 workers\n")
    assert len(re.findall(r"\[\d/4\] finished", said)) == 4
    assert "s: 4 of 4 cells finished, 4 started now; done in" in said
    assert "val_acc 51.00 %, test_acc 50.00 %" in said
    again, said = run(made)
    assert (again.finished, again.started) == (4, 0)
    assert "4 finished before, 0 to train" in said
    assert trainings(tmp_path) == [1, 1, 1, 1]


def test_cells_run_with_one_thread_in_processes_of_their_own(study, run, tmp_path):
    run(study(seeds=(0, 1, 2)))
    lines = [(folder / "trainings").read_text().split() for folder in folders(tmp_path)]
    assert len({pid for pid, *_ in lines} - {str(os.getpid())}) == 3
    assert {threads for _, threads, *_ in lines} == {"1"}


def test_workers_take_the_gpus_in_turn(study, run, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    run(study(seeds=(0, 1, 2), **{"model.seconds": value(0.3)}), workers=3)
    assert sorted((folder / "trainings").read_text().split()[2] for folder in folders(tmp_path)) == ["3", "3", "5"]


def test_the_plan_names_what_the_analysis_looks_for(study, run, tmp_path):
    made = study(**{"model": value({"lr": 0.3, "seconds": 0.0})})
    run(made)
    plan = read_plan(tmp_path, "s")
    assert plan["sweep_sha256"] == made.sha256
    assert [cell["seed"] for cell in plan["cells"]] == [0, 1]
    for cell in plan["cells"]:
        record = read_record(cell["run_directory"])
        assert (record.fingerprint, record.cell) == (cell["fingerprint"], cell["cell"])
        assert cell["overrides"] == {"model.lr": 0.3, "model.seconds": 0.0, "seed_everything": record.seed}
    with pytest.raises(ValueError, match=r"other/study\.json is no plan of a study .* run `vitexp sweep` first"):
        read_plan(tmp_path, "other")


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("refused", "model.trouble cannot be refused; allowed: none"),
        ("refused with status 2", "error: model.trouble is wrong"),
    ],
)
def test_a_refused_cell_ends_the_study_before_anything_trains(study, run, tmp_path, trouble, sentence):
    made = study(seeds=range(6), **{"model.trouble": value("none", trouble)})
    with pytest.raises(ValueError, match=f"cell 'trouble={trouble} seed=0' is refused: {sentence}.*5 more are refused"):
        run(made)
    assert folders(tmp_path) == []


def test_a_factor_that_does_not_arrive_ends_the_study_too(study, run, tmp_path):
    # A parser that reads the block after the dotted name sets the whole group anew, and the learning rate is lost.
    made = study(**{"model.lr": value(0.1, 0.2), "model.lost": value(True)})
    with pytest.raises(ValueError, match=r"cell 'lr=0\.2 seed=0' asks for model\.lr=0\.2 and would run with 0\.1"):
        run(made)
    assert folders(tmp_path) == []


def test_a_failed_cell_is_reported_and_retried_on_request(study, run, tmp_path):
    made = study(**{"model.trouble": value("nan", "none")})
    outcome, said = run(made)
    assert (outcome.finished, outcome.exit_status) == (2, 1)
    assert {failure.reason for failure in outcome.failures} == {"ValueError: the loss is not finite"}
    assert "failed   trouble=nan seed=0: ValueError: the loss is not finite (log: " in said
    assert "ValueError: the loss is not finite" in outcome.failures[0].log.read_text()
    again, said = run(made)
    assert (again.started, len(again.failures)) == (0, 2)
    assert "2 finished before, 2 failed before, 0 to train" in said
    retried, _ = run(made, retry=True)
    assert (retried.finished, retried.started, retried.exit_status) == (4, 2, 0)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("no record", "ended with status 3 and no finished record: nothing to train"),
        ("exit 0 unfinished", "ended with status 0 and no finished record: it wrote nothing"),
        ("killed", r"killed by signal 9 (SIGKILL)"),
    ],
)
def test_a_cell_without_a_finished_record_has_failed_whatever_its_status(study, run, trouble, reason):
    outcome, _ = run(study(**{"model.trouble": value("none", trouble)}))
    assert [failure.reason for failure in outcome.failures] == [reason] * 2
    assert outcome.finished == 2


def test_a_cell_with_a_finished_record_is_finished_whatever_its_status(study, run):
    outcome, _ = run(study(**{"model.trouble": value("finished, exit 1")}))
    assert (outcome.finished, outcome.exit_status) == (2, 0)


def test_a_killed_worker_leaves_a_record_that_says_so(study, run, tmp_path):
    run(study(**{"model.trouble": value("killed")}))
    records = [read_record(folder) for folder in folders(tmp_path)]
    assert [(r.status, r.reason) for r in records] == [("failed", "killed by signal 9 (SIGKILL)")] * 2


def test_a_directory_of_another_run_is_never_taken_for_the_cell(study, run, tmp_path):
    run(study())
    path = folders(tmp_path)[0] / "record.json"
    path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "x'))
    with pytest.raises(ValueError, match=r"seed-0 holds another run \(fingerprint x.*move it away"):
        run(study())


def test_cells_that_are_the_same_run_train_once(study, run, tmp_path):
    outcome, _ = run(study(**{"run.project": value("a", "b")}))
    assert (outcome.finished, trainings(tmp_path)) == (2, [1, 1])


def test_an_unfinished_cell_goes_on_with_the_resume_arguments(study, run, tmp_path):
    made = study(seeds=(0, 1))
    run(made)
    path = folders(tmp_path)[1] / "record.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "running"'))
    outcome, _ = run(made, resume=["--ckpt_path", "last"])
    assert (outcome.finished, outcome.started, trainings(tmp_path)) == (2, 1, [1, 2])
    first, second = (folders(tmp_path)[1] / "trainings").read_text().splitlines()
    assert "--ckpt_path last" not in first
    assert second.endswith("--ckpt_path last")


def test_early_termination_is_left_to_wandb(study, run):
    made = study()
    object.__setattr__(made, "early_terminate", {"type": "hyperband"})
    with pytest.raises(ValueError, match="early_terminate needs W&B's own controller"):
        run(made)


class Runner:
    """A runner in a process of its own; what it says goes to a file, which no orphan of it can keep open."""

    def __init__(self, study, root, workers=2):
        self.said = root / f"said-{time.monotonic_ns()}"
        command = [sys.executable, str(HERE / "trainer.py"), str(study.path), str(root), str(workers)]
        with self.said.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def end(self, number=None):
        """Its exit status and what it has said, after a signal or when it is done."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60), self.said.read_text()


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def pids(root):
    """The process that trained each cell last."""
    return [int((folder / "trainings").read_text().splitlines()[-1].split()[0]) for folder in folders(root)]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def statuses(root):
    return sorted(json.loads(path.read_text())["status"] for path in root.rglob("record.json"))


def test_kill_9_of_the_runner_ends_its_workers_and_loses_only_cells_in_flight(study, tmp_path):
    made = study(seeds=range(3), **{"model.trouble": value("none", "waits")})
    runner = Runner(made, tmp_path)
    wait_for(lambda: statuses(tmp_path) == ["finished"] * 3 + ["running"] * 2)
    workers = pids(tmp_path)
    runner.end(signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in workers), 5.0)
    assert statuses(tmp_path) == ["finished"] * 3 + ["running"] * 2
    (tmp_path / "go").touch()
    status, said = Runner(made, tmp_path, 3).end()
    assert status == 0, said
    assert "3 finished before, 3 to train" in said
    assert (statuses(tmp_path), sorted(trainings(tmp_path))) == (["finished"] * 6, [1, 1, 1, 1, 2, 2])


def test_kill_9_of_a_worker_fails_its_cell_and_no_other(study, tmp_path):
    made = study(seeds=range(3), **{"model.trouble": value("waits")})
    runner = Runner(made, tmp_path)
    wait_for(lambda: statuses(tmp_path) == ["running"] * 2)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    (tmp_path / "go").touch()
    status, said = runner.end()
    assert status == 1
    assert "killed by signal 9 (SIGKILL)" in said
    assert statuses(tmp_path) == ["failed", "finished", "finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_ends_its_workers_and_goes_on_later(study, run, tmp_path, number):
    made = study(seeds=(0, 1), **{"model.trouble": value("none", "waits")})
    runner = Runner(made, tmp_path)
    wait_for(lambda: statuses(tmp_path) == ["finished"] * 2 + ["running"] * 2)
    status, said = runner.end(number)
    assert (status, "Traceback" in said) == (130, False)
    assert "2 of 4 cells finished, 4 started now; stopped; run it again to go on" in said
    assert all(gone(pid) for pid in pids(tmp_path))
    assert statuses(tmp_path) == ["finished"] * 2 + ["running"] * 2
    (tmp_path / "go").touch()
    outcome, _ = run(made)
    assert (outcome.finished, outcome.started, outcome.exit_status) == (4, 2, 0)


def test_two_runners_share_the_cells_and_train_none_twice(study, tmp_path):
    made = study(seeds=range(6), **{"model.seconds": value(0.2)})
    runners = [Runner(made, tmp_path), Runner(made, tmp_path)]
    for runner in runners:
        status, said = runner.end()
        assert status == 0, said
        assert "6 of 6 cells finished" in said
    assert trainings(tmp_path) == [1] * 6


def test_a_cell_held_by_another_runner_is_waited_for(study, run, tmp_path):
    made = study(seeds=(0,), **{"model.trouble": value("waits")})
    other = Runner(made, tmp_path)
    wait_for(lambda: statuses(tmp_path) == ["running"])
    threading.Timer(1.0, (tmp_path / "go").touch).start()
    outcome, _ = run(made)
    other.end()
    assert (outcome.finished, outcome.started, trainings(tmp_path)) == (1, 0, [1])


def test_a_cell_left_behind_by_another_runner_is_taken_up(study, run, tmp_path):
    made = study(seeds=(0,), **{"model.trouble": value("waits")})
    other = Runner(made, tmp_path)
    wait_for(lambda: statuses(tmp_path) == ["running"])
    assert [lock.is_held(folder) for folder in folders(tmp_path)] == [True]
    threading.Timer(1.0, other.process.kill).start()
    threading.Timer(1.5, (tmp_path / "go").touch).start()
    outcome, _ = run(made)
    other.end()
    assert (outcome.finished, outcome.started, trainings(tmp_path)) == (1, 1, [2])
