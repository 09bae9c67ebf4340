"""From a study file to a table, by the real commands: shards, cells in processes of their own, records, files."""

import csv
import signal
import subprocess
import sys
import time

import pytest

from vitexp.record import read_records

EXPERIMENT = """\
study: {name: flow}
model: {arch: micro/4, lr: 2.0e-3, warmup_steps: 2}
data: {shards: digits, batch_size: 256}
trainer: {max_epochs: 1, accelerator: cpu}
run: {shots: [5], shot_seeds: 1}
"""
SWEEP = """\
program: vitexp
method: grid
metric: {name: val_acc, goal: maximize}
command: ["${env}", vitexp, fit, --config, flow.yaml, --config, "${args_json_file}"]
parameters:
  model.pos_embed: {values: [none, 1d]}
  seed_everything: {values: [0, 1]}
  study.name: {value: flow}
  study.baseline: {value: {model.pos_embed: 1d}}
  study.rows: {value: [model.pos_embed]}
  study.metrics: {value: [test_acc, fewshot_5]}
"""
WAIT_SECONDS = 120


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "flow.yaml").write_text(EXPERIMENT)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def vitexp(folder, *words):
    command = [sys.executable, "-m", "vitexp.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WAIT_SECONDS)


def finished(folder):
    return {(r.cell, r.seed): r for r in read_records(folder / "runs")[0] if r.status == "finished"}


def test_a_study_from_its_yaml_to_its_table_also_when_the_runner_is_killed(folder):
    runner = subprocess.Popen(
        [sys.executable, "-m", "vitexp.cli", "sweep", "sweep.yaml", "--workers", "1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    limit = time.monotonic() + WAIT_SECONDS
    while len(finished(folder)) < 1 and time.monotonic() < limit:
        time.sleep(0.05)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    before = finished(folder)
    assert 1 <= len(before) < 4

    done = vitexp(folder, "sweep", "sweep.yaml", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    after = finished(folder)
    assert len(after) == 4
    assert {key: after[key] for key in before} == before, "a finished cell was trained again"
    assert len({record.fingerprint for record in after.values()}) == 4

    table = vitexp(folder, "table", "sweep.yaml")
    assert table.returncode == 0, table.stderr
    assert "not enough evidence" in table.stdout
    with open(folder / "results" / "flow" / "table.csv") as file:
        rows = list(csv.DictReader(file))
    means = {row["model.pos_embed"]: float(row["mean"]) for row in rows if row["metric"] == "test_acc"}
    for word, mean in means.items():
        values = [r.metrics["test_acc"] for r in after.values() if r.config["model"]["pos_embed"] == word]
        assert mean == pytest.approx(sum(values) / 2)


def test_a_cell_that_the_parser_refuses_is_named_before_anything_trains(folder):
    (folder / "sweep.yaml").write_text(SWEEP.replace("[none, 1d]", "[none, 1d, 3d]"))
    done = vitexp(folder, "sweep", "sweep.yaml")
    assert done.returncode == 2
    assert "--model.pos_embed is '3d'; allowed: none, 1d, 2d, relative" in done.stderr
    assert "pos_embed=3d" in done.stderr
    assert "Traceback" not in done.stderr
    assert not read_records(folder / "runs")[0]
