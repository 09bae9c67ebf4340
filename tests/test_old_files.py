"""Files that the version of 2026-11-25 wrote before its modules moved still mean the same."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import vitexp
from vitexp.cli import main

OLD = Path(__file__).parent / "old"
LAST = "checkpoints/last.ckpt"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The old run in a folder of its own, with a record of this test's data: the digits, made anew."""
    (tmp_path / "experiments").symlink_to(OLD.parent.parent / "experiments")
    shutil.copytree(OLD / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return json.loads((OLD / "run" / "record.json").read_text())


def test_a_finished_run_is_found_by_its_config(run, capsys):
    assert main(["fit", "--config", "run/config.yaml"]) == 0
    assert "Finished already" in capsys.readouterr().out
    assert json.loads(Path("run/record.json").read_text()) == run


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_its_checkpoint_measures_what_was_recorded(run, verb, capsys):
    split = {"validate": "val"}.get(verb, verb)
    assert main([verb, "--config", "run/config.yaml", "--trainer.enable_progress_bar=false"]) == 0
    said = capsys.readouterr().out
    assert f"accuracy {100 * run['metrics'][f'{split}_acc']:.2f} %   loss {run['metrics'][f'{split}_loss']:.4f}" in said


def test_its_checkpoint_gives_the_network_to_python(run):
    module = vitexp.Classifier.load_from_checkpoint(f"run/{LAST}", map_location=None, weights_only=True)
    assert module.hparams["arch"] == run["config"]["model"]["arch"]
    theirs = torch.load(f"run/{LAST}", weights_only=True)["state_dict"]
    assert all(torch.equal(value, theirs[name]) for name, value in module.state_dict().items())


def test_it_is_continued_and_begun_from(run):
    words = ["--config", "run/config.yaml", "--trainer.enable_progress_bar=false", "--run.shots=[]"]
    longer = ["--trainer.max_epochs=2", "--model.warmup_steps=0", "--run.dir=longer", f"--ckpt_path=run/{LAST}"]
    assert main(["fit", *words[:3], *longer]) == 0
    record = vitexp.read_record("longer")
    assert (record.status, record.steps) == ("finished", 2 * run["steps"])
    assert record.config["run"]["continued"]["fingerprint"] == run["fingerprint"]
    assert main(["fit", *words, "--run.dir=other", f"--run.init=run/{LAST}"]) == 0


def test_its_study_is_tabulated(run, capsys):
    place = Path("runs/pos_ablation") / run["cell"] / "seed-0"
    shutil.copytree("run", place)
    shutil.copy(OLD / "sweep.yaml", "sweep.yaml")
    assert main(["table", "sweep.yaml"]) == 0
    assert f"{100 * run['metrics']['test_acc']:.2f}" in capsys.readouterr().out


def test_shards_are_verified_and_read_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD / "toy", "toy")
    assert main(["shards", "verify", "toy"]) == 0
    data = vitexp.ShardData(shards="./toy", val_fraction=0.25)
    (batch,) = data.test_dataloader()
    assert batch.labels.tolist() == [1, 2, 2, 1, 0, 0]
    assert hashlib.sha256(batch.images.numpy().tobytes()).hexdigest()[:16] == "b8ce25ea423b4d32"
