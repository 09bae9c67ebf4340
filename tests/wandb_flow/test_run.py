"""One run and its W&B run: what arrives, and from where."""

import pytest
import yaml

from vitexp.record import read_record
from vitexp.wandb_record import from_wandb


def only_run(server):
    assert len(server.state.runs) == 1
    return next(iter(server.state.runs.values()))


def check_answers(server, record, folder):
    """The answers to each image are an artifact of the run, byte for byte, and its record has come back with them."""
    (artifact,) = server.state.artifacts
    assert artifact.committed
    assert {entry["file"] for entry in record.answers.values()} == set(artifact.contents)
    for entry in record.answers.values():
        assert artifact.files[f"data/{entry['file']}"] == (folder / entry["file"]).read_bytes()
    run = only_run(server)
    assert artifact.facts["runName"] == run.name
    assert from_wandb(run.values(), run.summary, run.state).answers == record.answers


def test_a_run_arrives_with_history_summary_and_flat_config(client, server):
    words = ["--trainer.max_steps=4", "--model.warmup_steps=2", "--trainer.val_check_interval=2"]
    done = client.fit(*words, "--trainer.log_every_n_steps=1", "--data.train_images=100", "--model.lr=1.0e-4")
    assert done.returncode == 0, done.stderr
    assert f"W&B online  {server.url}/lab/vitexp/runs/" in done.stdout
    record, run = read_record(client.folder / "run"), only_run(server)
    assert (run.state, run.exitcode) == ("finished", 0)
    assert {name: run.summary[name] for name in record.metrics} == record.metrics
    rows = run.history
    assert [row["train_loss"] for row in rows if "train_loss" in row][-1] == pytest.approx(run.summary["train_loss"])
    curve = [
        [row["trainer/global_step"], row["val_acc"]] for row in rows if "val_acc" in row and "data_size" not in row
    ]
    assert curve == [list(point) for point in record.curves["val_acc"]]
    check_answers(server, record, client.folder / "run")
    config = run.values()
    assert (config["data.train_images"], config["data_size"], config["model.lr"]) == (100, 100, 1e-4)
    assert (config["model.pos_embed"], config["run.test"], config["data.image_size"]) == ("1d", True, None)
    assert not [key for key, value in config.items() if isinstance(value, dict)]
    assert (client.folder / "run" / "wandb_id.txt").read_text() == f"lab/vitexp/{run.name}\n"


def test_test_numbers_of_a_candidate_are_no_metric_there_and_are_read_from_there(client, server):
    words = ["--trainer.max_steps=4", "--model.warmup_steps=2", "--data.train_images=100", "--run.shots=[5]"]
    done = client.fit(*words, "--study.tune=[model.lr]")
    assert done.returncode == 0, done.stderr
    record, run = read_record(client.folder / "run"), only_run(server)
    assert {"test_acc", "test_loss", "fewshot_5"} < record.metrics.keys()
    rows = [*run.history, {name: value for name, value in run.summary.items() if name != "withheld"}]
    assert not [name for row in rows for name in row if "test" in name or "fewshot" in name]
    assert run.summary["val_acc"] == record.metrics["val_acc"]
    assert from_wandb(run.values(), run.summary, run.state).metrics == record.metrics
    check_answers(server, record, client.folder / "run")
    told = client.fit(*words, "--study.tune=[model.lr]", WANDB_SWEEP_ID="12ab34cd")
    assert "Finished already" in told.stdout
    (again,) = (one for one in server.state.runs.values() if one.name != run.name)
    assert again.summary["val_acc"] == record.metrics["val_acc"]
    assert not [name for row in (*again.history, again.summary) for name in row if "test" in name or "fewshot" in name]


def test_the_shipped_sweep_is_one_that_wandb_takes(client, server):
    name = client.make_sweep("sweeps/datasize.yaml").rpartition("/")[2]
    given = yaml.safe_load((client.folder / "sweeps" / "datasize.yaml").read_text())
    assert yaml.safe_load(server.state.sweeps[name].text) == given
