"""A real Ray cluster of several nodes on this machine, whose workers are killed; cells sleep instead of training."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vitexp.record import read_records

pytestmark = pytest.mark.slow
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='no Ray here: pip install "vitexp[ray]"')
HERE = Path(__file__).parent


class Cluster:
    def __init__(self, nodes):
        command = [sys.executable, str(HERE / "ray_runner.py"), "cluster", *map(str, nodes)]
        environment = os.environ | {"PYTHONPATH": str(HERE), "RAY_USAGE_STATS_ENABLED": "0"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.address = self.process.stdout.readline().strip()

    def kill_a_node(self):
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "gone\n"

    def end(self):
        self.process.communicate(timeout=600)


@pytest.fixture
def cluster():
    made = []

    def make(*nodes):
        made.append(Cluster(nodes))
        return made[0]

    yield make
    for one in made:
        one.end()


def value(*choices):
    return {"values": list(choices)}


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@needs_ray
def test_cells_on_a_cluster_are_trained_once_and_never_again(cluster, study, ground):
    address = cluster(1, 1).address
    made = study(seeds=range(3), **{"model.trouble": value("none", "crashes")})
    status, said = ground.start_on_ray(made, address).end()
    assert status == 1, said
    assert ground.statuses() == ["failed"] * 3 + ["finished"] * 3
    assert said.count("killed by signal 11 (SIGSEGV)") == 6  # once when it happens, once at the end
    status, said = ground.start_on_ray(made, address).end()
    assert "3 finished before, 3 failed before, 0 to train on 2 workers" in said
    assert ground.trainings() == [1] * 6
    lines = [(folder / "trainings").read_text().split() for folder in ground.folders()]
    assert {threads for _, threads, *_ in lines} == {"1"}


@needs_ray
def test_half_a_gpu_each_puts_two_cells_on_one(cluster, study, ground):
    address = cluster(4).address
    made = study(seeds=range(4), **{"model.trouble": value("waits")})
    runner = ground.start_on_ray(made, address, 0.5)
    wait_for(lambda: ground.statuses() == ["running"] * 2)
    time.sleep(1.0)
    assert ground.statuses() == ["running"] * 2
    (ground.root / "go").touch()
    status, said = runner.end()
    assert status == 0, said
    assert {(folder / "trainings").read_text().split()[2] for folder in ground.folders()} == {"0"}


@needs_ray
def test_cells_of_a_lost_worker_and_of_a_dead_node_go_on_elsewhere(cluster, study, ground):
    made = study(seeds=range(2), **{"model.trouble": value("waits")})
    nodes = cluster(1, 1)
    runner = ground.start_on_ray(made, nodes.address)
    wait_for(lambda: ground.statuses() == ["running"] * 2)
    first = ground.pids()
    os.kill(parent(parent(first[0])), signal.SIGKILL)  # of the cell's fork server: Ray's worker
    wait_for(lambda: sum(ground.trainings()) == 3)
    assert gone(first[0])
    before = ground.pids()
    nodes.kill_a_node()
    wait_for(lambda: sum(gone(pid) for pid in before) == 1)
    (ground.root / "go").touch()
    status, said = runner.end()
    assert status == 0, said
    assert said.count("its process was ended from outside; it goes on from its last checkpoint") == 2
    assert (ground.statuses(), sum(ground.trainings())) == (["finished"] * 2, 4)
    again = [line for folder in ground.folders() for line in (folder / "trainings").read_text().splitlines()[1:]]
    assert all(line.endswith("--ckpt_path last") for line in again)


@needs_ray
def test_an_interrupted_study_leaves_nothing_running_on_the_cluster(cluster, study, ground):
    made = study(seeds=range(2), **{"model.trouble": value("waits")})
    runner = ground.start_on_ray(made, cluster(2).address)
    wait_for(lambda: ground.statuses() == ["running"] * 2)
    status, said = runner.end(signal.SIGINT)
    assert (status, "Traceback" in said) == (130, False)
    wait_for(lambda: all(gone(pid) for pid in ground.pids()), 10.0)
    assert ground.statuses() == ["running"] * 2


@needs_ray
def test_the_command_runs_real_cells_on_a_cluster_of_its_own(tmp_path):
    fixed = {"study.name": "s", "model.warmup_steps": 0, "trainer.max_steps": 2, "run.shots": []}
    parameters = {key: {"value": value} for key, value in fixed.items()}
    parameters |= {"model.pos_embed": value("none", "1d"), "seed_everything": value(0, 1)}
    words = ["vitexp", "fit", "--config", "experiments/pos_ablation.yaml", "--config", "${args_json_file}"]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"method": "grid", "command": words, "parameters": parameters}))
    command = [str(Path(sys.executable).parent / "vitexp"), "sweep", str(path), f"--root={tmp_path}"]
    done = subprocess.run(
        [*command, "--engine=ray", "--cpus-per-run=1"], capture_output=True, text=True, timeout=300, cwd=HERE.parents[1]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {(record.status, record.steps) for record in read_records(tmp_path)[0]} == {("finished", 2)}
    assert len(read_records(tmp_path)[0]) == 4
