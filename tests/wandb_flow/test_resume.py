"""One training is one W&B run: over interruptions, over ranks, and under the arguments that W&B adds."""

import os
import signal

import pytest

from vitexp.record import read_record

pytestmark = pytest.mark.slow

LONG = [
    "--trainer.max_steps=300",
    "--trainer.log_every_n_steps=1",
    "--trainer.val_check_interval=50",
    "--run.checkpoint_steps=20",
]
STEPS = 300


def interrupted(client, how):
    """A training that a signal has ended after its first checkpoint, and its exit status."""
    process = client.start_fit(*LONG)
    client.wait_until(lambda: (client.folder / "run" / "checkpoints" / "last.ckpt").is_file(), "a checkpoint")
    process.send_signal(how)
    return client.ended(process)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_resumed_run_continues_its_w_and_b_run(client, server, how):
    cut = interrupted(client, how)
    assert cut.returncode == (-9 if how == signal.SIGKILL else 128 + how)
    (run,) = server.state.runs.values()
    if how != signal.SIGKILL:
        assert (run.state, run.exitcode) == ("failed", 128 + how)
        assert "--ckpt_path last goes on from" in run.summary["reason"]
        assert "finished" not in run.summary
    done = client.fit(*LONG, "--ckpt_path=last")
    assert done.returncode == 0, done.stderr
    assert list(server.state.runs.values()) == [run]
    record = read_record(client.folder / "run")
    assert (run.state, run.exitcode, record.status) == ("finished", 0, "finished")
    assert {name: run.summary[name] for name in record.metrics} == record.metrics
    if how != signal.SIGKILL:  # which loses what the client has not sent yet
        assert {row["trainer/global_step"] for row in run.history if "train_loss" in row} == set(range(STEPS))
    assert [row["_step"] for row in run.history] == sorted({row["_step"] for row in run.history})


def test_a_cell_of_a_sweep_that_was_cut_off_is_resumed_by_hand_into_the_sweep(client, server):
    place = client.sweep(
        {"study.name": "cut", "run.dir": "run", "run.checkpoint_steps": 20, "trainer.max_steps": STEPS}
    )
    agent = client.start("wandb", "agent", place)
    client.wait_until(lambda: (client.folder / "run" / "checkpoints" / "last.ckpt").is_file(), "a checkpoint")
    os.kill(client.child_of(agent, "vitexp"), signal.SIGTERM)
    client.ended(agent)
    (run,) = server.state.runs.values()
    assert (run.state, read_record(client.folder / "run").status) == ("failed", "stopped")
    words = ["--study.name=cut", "--run.checkpoint_steps=20", f"--trainer.max_steps={STEPS}", "--ckpt_path=last"]
    done = client.fit(*words)
    assert done.returncode == 0, done.stderr
    assert list(server.state.runs.values()) == [run]
    assert (run.state, run.sweep) == ("finished", place.rpartition("/")[2])
    assert run.summary["test_acc"] == read_record(client.folder / "run").metrics["test_acc"]


def test_two_processes_are_one_run(client, server):
    words = ["--trainer.max_steps=4", "--model.warmup_steps=2", "--trainer.val_check_interval=2"]
    parallel = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = client.fit(*words, *parallel, "--trainer.log_every_n_steps=1", "--data.train_images=256")
    assert done.returncode == 0, done.stderr
    (run,) = server.state.runs.values()
    record = read_record(client.folder / "run")
    assert (run.state, record.device["world_size"]) == ("finished", 2)
    assert [row["trainer/global_step"] for row in run.history if "train_loss" in row] == [0, 1, 2, 3]
    assert {name: run.summary[name] for name in record.metrics} == record.metrics


def test_arguments_that_w_and_b_adds_are_left_out_with_a_line(client, server):
    words = ["--trainer.max_steps=2", "--model.warmup_steps=1", "--trainer.val_check_interval=2"]
    done = client.fit(*words, '--_wandb={"code_path": "x"}')
    assert done.returncode == 0, done.stderr
    assert "left out --_wandb" in done.stdout
    assert [run.state for run in server.state.runs.values()] == ["finished"]


def test_a_run_that_was_cut_off_offline_arrives_as_one(client, server):
    client.environment["WANDB_MODE"] = "offline"
    assert interrupted(client, signal.SIGTERM).returncode == 128 + signal.SIGTERM
    done = client.fit(*LONG, "--ckpt_path=last")
    assert done.returncode == 0
    del client.environment["WANDB_MODE"]
    line = next(line for line in done.stdout.splitlines() if line.startswith("W&B offline"))
    command = line[line.index("wandb sync") :].rstrip(")").split()
    assert client.run(*command).returncode == 0
    (run,) = server.state.runs.values()
    record = read_record(client.folder / "run")
    assert {name: run.summary[name] for name in record.metrics} == record.metrics
    assert {row["trainer/global_step"] for row in run.history if "train_loss" in row} == set(range(STEPS))
