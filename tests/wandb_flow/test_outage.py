"""A server that is away, broken or slow: training ends with status 0 and a finished record, and nothing is lost."""

import os
import re
import signal
import time

import pytest

from vitexp.record import read_record

pytestmark = pytest.mark.slow

LONG = ["--trainer.max_steps=150", "--trainer.log_every_n_steps=1", "--trainer.val_check_interval=50"]
SHORT = ["--trainer.max_steps=2", "--model.warmup_steps=1", "--trainer.val_check_interval=2"]
BOUNDS = {"WANDB_INIT_TIMEOUT": "4", "WANDB_FINISH_TIMEOUT": "4"}
"""The product's own bounds are 30 and 120 seconds."""


def finished(client, done):
    """The record of a run that ended well."""
    assert done.returncode == 0, done.stderr
    record = read_record(client.folder / "run")
    assert record.status == "finished"
    return record


def upload(client, text):
    """Runs the `wandb sync ...` that a run has printed."""
    line = re.search(r"(wandb sync [^\n)]*)", text)[1].split()
    done = client.run(*line)
    assert done.returncode == 0, done.stderr
    assert "Skipped" not in done.stderr
    return line


def arrived(server, record):
    """The W&B run, with every number of the record."""
    (run,) = server.state.runs.values()
    assert {name: run.summary[name] for name in record.metrics} == record.metrics
    rows = [row for row in run.history if "val_acc" in row and "data_size" not in row]
    curve = [[row["trainer/global_step"], row["val_acc"]] for row in rows]
    assert curve == [list(point) for point in record.curves["val_acc"]]
    assert run.values()["record.fingerprint"] == record.fingerprint
    return run


def logged_steps(run):
    return [row["trainer/global_step"] for row in run.history if "train_loss" in row]


def test_without_a_key_it_is_an_offline_run_and_sync_brings_it(client, server):
    done = client.fit(*SHORT, WANDB_API_KEY="")
    record = finished(client, done)
    assert "W&B offline" in done.stdout
    assert not server.requests
    upload(client, done.stdout)
    assert arrived(server, record).state == "finished"


def test_a_server_that_is_down_at_the_start(client, server):
    server.stop()
    done = client.fit(*SHORT)
    record = finished(client, done)
    assert done.stderr.count("W&B: ") == 1
    assert f"{server.url} cannot be reached (Connection refused); logging offline" in done.stderr
    server.start()
    upload(client, done.stdout)
    assert arrived(server, record).state == "finished"


@pytest.mark.parametrize("fault", [{"seconds": 3600.0}, {"status": 503}, {"status": 500}, {"status": 401}], ids=str)
def test_a_server_that_listens_but_does_not_serve(client, server, fault):
    for name, value in fault.items():
        setattr(server.fault, name, value)
    done = client.fit(*SHORT, **BOUNDS)
    record = finished(client, done)
    assert len(re.findall("^W&B: .*; logging offline$", done.stderr, re.M)) == 1
    server.fault.seconds, server.fault.status = 0.0, None
    upload(client, done.stdout)
    assert arrived(server, record).state == "finished"


def run_and(client, server, act, **environment):
    """A long training; `act` happens as soon as W&B knows the run and training goes on."""
    process = client.start_fit(*LONG, **environment)
    client.wait_until(lambda: server.state.runs, "the run began")
    client.wait_until(lambda: list((client.folder / "run").rglob("metrics.csv")), "training went on")
    act()
    return client.ended(process)


def test_a_server_that_goes_away_in_the_middle_for_good(client, server):
    done = run_and(client, server, server.stop, **BOUNDS)
    record = finished(client, done)
    assert len(re.findall("^W&B: the server did not take everything in time", done.stderr, re.M)) == 1
    server.start()
    assert "--include-online" in upload(client, done.stderr)
    assert logged_steps(arrived(server, record)) == list(range(150))


def test_a_server_that_goes_away_in_the_middle_and_comes_back(client, server):
    def restart():
        server.stop()
        time.sleep(5)
        server.start()

    done = run_and(client, server, restart)
    run = arrived(server, finished(client, done))
    assert (run.state, logged_steps(run)) == ("finished", list(range(150)))


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_server_that_fails_with_every_number(client, server, status):
    def fail():
        server.fault.where, server.fault.status = "file_stream", status

    done = run_and(client, server, fail, **BOUNDS)
    record = finished(client, done)
    server.fault.status = None
    upload(client, done.stderr)
    assert logged_steps(arrived(server, record)) == list(range(150))


def test_a_slow_server_does_not_slow_training(client, server):
    server.fault.seconds = 2.0
    done = client.fit(*LONG)
    record = finished(client, done)
    assert record.train_seconds < 60
    run = arrived(server, record)
    assert (run.state, logged_steps(run)) == ("finished", list(range(150)))


def test_a_client_whose_own_process_dies_does_not_end_training(client, server):
    process = client.start_fit(*LONG)
    client.wait_until(lambda: server.state.runs, "the run began")
    client.wait_until(lambda: list((client.folder / "run").rglob("metrics.csv")), "training went on")
    os.kill(client.child_of(process, "wandb"), signal.SIGKILL)
    done = client.ended(process)
    finished(client, done)
    assert len(re.findall("^W&B: .*no more numbers of this run$", done.stderr, re.M)) == 1
