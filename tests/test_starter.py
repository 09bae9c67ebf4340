"""Who installed the package has the experiments and sweeps of the repository, byte for byte."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vitexp import cli
from vitexp.starter import FOLDERS

ROOT = Path(__file__).parent.parent


def contents(top):
    """Every file of the folders below `top`, without what Python or an editor leaves there."""
    paths = [path for folder in FOLDERS for path in (top / folder).iterdir()]
    return {str(path.relative_to(top)): path.read_bytes() for path in paths if path.is_file() and path.name[0] != "."}


def test_init_writes_the_repositorys_own_files_and_keeps_what_is_there(tmp_path, capsys):
    assert cli.main(["init", str(tmp_path / "new")]) == 0
    assert contents(tmp_path / "new") == contents(ROOT)
    assert "vitexp fit --config experiments/pos_ablation.yaml" in capsys.readouterr().out
    (tmp_path / "new" / "sweeps" / "vtab.yaml").unlink()
    (tmp_path / "new" / "sweeps" / "mine.yaml").write_text("mine")
    assert cli.main(["init", str(tmp_path / "new")]) == 0
    assert contents(tmp_path / "new") == contents(ROOT) | {"sweeps/mine.yaml": b"mine"}


@pytest.mark.parametrize("mine", ["file", "folder", "parent"])
def test_init_overwrites_nothing(mine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "sweeps" / "vtab.yaml"
    if mine == "parent":
        place.parent.write_text("mine")
    elif mine == "folder":
        place.mkdir(parents=True)
    else:
        place.parent.mkdir()
        place.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["init"]) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert "sweeps/" in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    if mine == "file":
        assert place.read_text() == "mine"


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(tmp_path):
    source, folder, installed = tmp_path / "source", tmp_path / "empty", tmp_path / "installed"
    source.mkdir(), folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", *FOLDERS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "vitexp/py.typed" in zipfile.ZipFile(wheel).namelist()
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", installed, wheel], check=True)

    def vitexp(*words):
        environment = os.environ | {"PYTHONPATH": str(installed), "WANDB_MODE": "offline"}
        command = [sys.executable, "-m", "vitexp", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    vitexp("init")
    assert contents(folder) == contents(ROOT)
    said = vitexp("fit", "--config", "experiments/pos_ablation.yaml", "--trainer.max_epochs", "1", "--run.wandb", "off")
    assert "5-shot" in said
    assert len(list(folder.glob("runs/pos_ablation/*/seed-0/record.json"))) == 1
