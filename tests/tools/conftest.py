"""Networks that the commands open: in a file, or trained for a small study."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from vitexp import cli
from vitexp.data.shards import write
from vitexp.nn.vit import ViTConfig, build
from vitexp.weights.read import save_own

sys.path.append(str(Path(__file__).parent))  # tests are no packages

STUDY = {
    "program": "vitexp",
    "method": "grid",
    "command": ["${env}", "vitexp", "fit", "--config", "${args_json_file}"],
    "parameters": {
        "model.pos_embed": {"values": ["none", "1d"]},
        "seed_everything": {"values": [0, 1]},
        "study.name": {"value": "rob"},
        "study.baseline": {"value": {"model.pos_embed": "1d"}},
        "study.metrics": {"value": ["test_acc", "robust/shuffle_2x2"]},
        "study.primary": {"value": ["test_acc", "robust/shuffle_2x2"]},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("inside")


@pytest.fixture
def saved(place, monkeypatch):
    """Saves a network in a folder where the digits are written on first use."""
    monkeypatch.chdir(place)

    def save(change=None, **axes):
        torch.manual_seed(0)
        model = build(ViTConfig(**{"arch": "micro/2", "image_size": 8, "classes": 10} | axes)).eval()
        if change:
            with torch.no_grad():
                change(model)
        save_own(model, "own.safetensors")
        return model

    return save


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The runs of a small study, trained for real, and the shards."""
    home = tmp_path_factory.mktemp("robust")
    digits = write.make("digits", home / "digits")
    given = ["--model.arch", "micro/2", "--data.shards", str(digits), "--data.train_images", "128"]
    given += ["--trainer.max_epochs", "2", "--model.lr", "3.0e-3", "--model.warmup_steps", "1", "--run.shots", "[]"]
    given += ["--study.name", "rob", "--run.root", str(home / "runs"), "--trainer.enable_progress_bar", "false"]
    for kind in ("none", "1d"):
        for seed in ("0", "1"):
            words = ["fit", "--model.pos_embed", kind, "--seed_everything", seed, *given]
            assert cli.main(words) in (0, None)
    (home / "rob.yaml").write_text(yaml.safe_dump(STUDY))
    return home


@pytest.fixture
def home(trained, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"
