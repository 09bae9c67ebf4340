"""The job scripts, run as SLURM would run them; srun and scontrol are stand-ins that start ranks and end them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment

from vitexp import cli
from vitexp.record import read_record, read_records
from vitexp.train import trainer_flags as slurm

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "experiments" / "slurm.sbatch", ROOT / "sweeps" / "slurm.sbatch"]
TASK = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "5"}
TASK |= {"SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "1234567", "SLURM_NODELIST": "node[3-4]"}
SRUN = """#!/bin/bash
echo $$ > "$SLURM_FOLDER/srun.pid"
ranks=()
for rank in $(seq 0 $((SLURM_NTASKS_PER_NODE - 1))); do
    SLURM_NTASKS=$SLURM_NTASKS_PER_NODE SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" &
    ranks+=($!)
done
end() { kill -TERM "${ranks[@]}"; (sleep 5; kill -KILL "${ranks[@]}") 2>/dev/null & }
trap end TERM
for rank in "${ranks[@]}"; do
    wait "$rank"; status=$?
    while kill -0 "$rank" 2>/dev/null; do wait "$rank"; status=$?; done
done
exit $status
"""
SCONTROL = '#!/bin/bash\necho "$@" >> "$SLURM_FOLDER/scontrol"\nkill -TERM "$(cat "$SLURM_FOLDER/srun.pid")"\n'


@pytest.fixture
def job(tmp_path):
    """Starts a job script with these words, with stand-ins for SLURM's commands; they replace each other by name."""
    (tmp_path / "bin").mkdir()
    started = []

    def start(script, *words, ranks=1, **commands):
        for name, text in ({"srun": SRUN, "scontrol": SCONTROL} | commands).items():
            (tmp_path / "bin" / name).write_text(text)
            (tmp_path / "bin" / name).chmod(0o755)
        given = {"SLURM_JOB_ID": "4242", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": str(ranks)}
        path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | given | {"PATH": path, "SLURM_FOLDER": str(tmp_path), "OMP_NUM_THREADS": "1"}
        with (tmp_path / "said").open("a") as said:
            streams = {"stdout": said, "stderr": said, "start_new_session": True}
            started.append(subprocess.Popen(["bash", script, *words], env=environment, cwd=ROOT, **streams))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)


def in_a_task(monkeypatch, **changes):
    for name, value in (TASK | changes).items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=["run", "sweep"])
def test_the_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert "#SBATCH --signal=B:" in text
    assert subprocess.run(["bash", script], capture_output=True).returncode != 0  # no file given


def test_a_task_of_srun_knows_its_rank_and_saves_nothing_in_signal_handlers(monkeypatch):
    assert slurm.environment([]) == []
    in_a_task(monkeypatch)
    (found,) = slurm.environment([])
    assert (found.world_size(), found.global_rank(), found.local_rank(), found.node_rank()) == (8, 5, 1, 1)
    assert (found.main_address, found.main_port) == ("node3", 15000 + 4567)
    assert found.auto_requeue is False
    found.validate_settings(num_devices=4, num_nodes=2)
    with pytest.raises(ValueError, match="does not match"):
        found.validate_settings(num_devices=2, num_nodes=2)
    assert slurm.environment([LightningEnvironment()]) == []


def test_cells_of_an_array_are_no_ranks(monkeypatch):
    in_a_task(monkeypatch, SLURM_JOB_NAME="interactive")
    assert slurm.environment([]) == []
    assert "export SLURM_JOB_NAME=interactive" in SCRIPTS[1].read_text()


def test_the_options_of_the_run_pass_the_parser(job, tmp_path):
    keeps = f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/words\n'
    assert job(SCRIPTS[0], "experiments/pos_ablation.yaml", "--model.pool=gap", ranks=2, srun=keeps).wait(600) == 0
    program, *words = (tmp_path / "words").read_text().splitlines()
    assert (program, words[0]) == ("vitexp", "fit")
    config = cli.plan(words)["config"]
    assert [str(config["trainer"][key]) for key in ("devices", "num_nodes", "strategy")] == ["2", "1", "ddp"]
    assert (config["model"]["pool"], config["run"]["checkpoint_minutes"]) == ("gap", 2)
    assert "--ckpt_path=last" in words


def test_the_options_of_the_array_pass_the_parser(job, tmp_path):
    keeps = f'#!/bin/bash\nprintf "%s\\n" "$SLURM_JOB_NAME" "$@" > {tmp_path}/words\n'
    assert job(SCRIPTS[1], "sweeps/pos_embed.yaml", "--workers", "2", vitexp=keeps).wait(600) == 0
    name, *words = (tmp_path / "words").read_text().splitlines()
    chosen = cli.build_parser().parse_args(words)
    assert (name, chosen.files, chosen.workers, chosen.threads) == ("interactive", ["sweeps/pos_embed.yaml"], 2, 1)


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_requeued_run_on_two_ranks_ends_as_an_unbroken_one(job, tmp_path):
    words = ["experiments/pos_ablation.yaml", "--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--run.shots=[]"]
    words += ["--run.checkpoint_steps=5", "--run.wandb=off"]
    assert job(SCRIPTS[0], *words, f"--run.root={tmp_path}/whole", ranks=2).wait(600) == 0, (
        tmp_path / "said"
    ).read_text()
    root = tmp_path / "broken"
    broken = job(SCRIPTS[0], *words, f"--run.root={root}", ranks=2)
    wait_for(lambda: list(root.rglob("last.ckpt")))
    broken.send_signal(signal.SIGUSR1)
    assert broken.wait(60) != 0
    assert (tmp_path / "scontrol").read_text() == "requeue 4242\n"
    (cut,) = read_records(root)[0]
    assert cut.status in ("stopped", "running")  # stopped where every rank ended its step before SIGKILL
    assert job(SCRIPTS[0], *words, f"--run.root={root}", ranks=2).wait(600) == 0, (tmp_path / "said").read_text()
    (whole,), (again,) = read_records(tmp_path / "whole")[0], read_records(root)[0]
    assert (again.status, again.steps, again.device["world_size"]) == ("finished", whole.steps, 2)
    assert again.metrics == whole.metrics
    paths = [next(tmp_path.joinpath(name).rglob("last.ckpt")) for name in ("whole", "broken")]
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list(ROOT.glob("hpc_ckpt_*"))


@pytest.mark.slow
def test_the_tasks_of_an_array_share_the_cells_of_a_sweep(job, tmp_path):
    text = (ROOT / "sweeps" / "pos_embed.yaml").read_text().replace("[0, 1, 2, 3, 4]", "[0]")
    (tmp_path / "small.yaml").write_text(text + "  trainer.max_epochs: {value: 3}\n  run.shots: {value: []}\n")
    tasks = [job(SCRIPTS[1], str(tmp_path / "small.yaml"), "--root", str(tmp_path / "runs")) for _ in range(2)]
    assert [task.wait(300) for task in tasks] == [0, 0], (tmp_path / "said").read_text()
    records = read_records(tmp_path / "runs")[0]
    assert [record.status for record in records] == ["finished"] * 8
    assert {read_record(path).device["world_size"] for path in tmp_path.rglob("record.json")} == {1}
    assert {len(list(path.glob("version_*"))) for path in tmp_path.rglob("metrics")} == {1}  # each trained once
    started = [int(words[-4]) for words in _ends(tmp_path / "said")]
    assert sum(started) == 8


def _ends(path):
    """The closing lines `pos_embed: 8 of 8 cells finished, N started now; done in ...`, up to the semicolon."""
    lines = [line for line in path.read_text().splitlines() if "cells finished" in line]
    return [[*line.split(";")[0].replace(",", "").split(), ""] for line in lines]
