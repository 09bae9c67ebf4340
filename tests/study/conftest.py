"""A laboratory for studies: real sweep files and real records, with numbers from a seeded generator; and a ground on
which the runner runs cells that sleep instead of training (trainer.py)."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from rich.console import Console

from vitexp.record import RunRecord, cell_fingerprint, fingerprint, run_directory, write_record
from vitexp.study.run.progress import Progress
from vitexp.study.run.runner import run_study
from vitexp.study.spec import read_study

HERE = Path(__file__).parent
COMMAND = ["${env}", "vitexp", "fit", "--config", "${args_json_file}"]

PLACES = ("stem", "every", "shared")
ARMS = [("none", "stem"), *((kind, at) for kind in ("1d", "2d") for at in PLACES), ("relative", "stem")]
POSITIONS = {
    "study.name": "pos",
    "study.baseline": {"model.pos_embed": "1d", "model.pos_at": "stem"},
    "study.rows": ["model.pos_embed"],
    "study.columns": ["model.pos_at"],
    "study.metrics": ["test_acc", "fewshot_5"],
    "study.margin": 0.01,
    "study.paper": "table8",
}

# Ray's workers find trainer.py by it; Ray itself says nothing to anybody.
RAY = {"PYTHONPATH": str(HERE), "RAY_USAGE_STATS_ENABLED": "0", "ANOTHER_MACHINE": ""}


class Lab:
    """Writes studies and the records of their cells below one folder."""

    def __init__(self, folder):
        self.root = folder / "runs"
        self.folder = folder

    def study(self, settings, swept, fixed=None):
        parameters = {key: {"value": value} for key, value in {**settings, **(fixed or {})}.items()}
        parameters |= {key: {"values": values} for key, values in swept.items()}
        command = ["${env}", "vitexp", "fit", "--config", "experiments/x.yaml", "--config", "${args_json_file}"]
        path = self.folder / f"{settings['study.name']}.yaml"
        path.write_text(yaml.safe_dump({"method": "grid", "parameters": parameters, "command": command}))
        return read_study(path)

    def positions(self, seeds=5, **settings):
        model = [{"pos_embed": kind, "pos_at": at} for kind, at in ARMS]
        return self.study({**POSITIONS, **settings}, {"model": model, "seed_everything": list(range(seeds))})

    def run(self, cell, metrics, *, study="pos", config=None, folder=None, **changes):
        """Writes the record of a cell; `config` adds dotted keys that the sweep does not set."""
        resolved = _nested({"trainer.max_epochs": 10, **cell.overrides, **(config or {})})
        name, seed = cell_fingerprint(resolved)[:8], cell.seed or 0
        given = {
            "study": study, "cell": name, "seed": seed, "fingerprint": fingerprint(resolved), "status": "finished",
            "config": resolved, "metrics": metrics, "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00", "data": {"name": "digits", "classes": 10, "test_images": 360},
        }  # fmt: skip
        record = RunRecord(**given | changes)
        write_record(record, folder or run_directory(self.root, study, name, seed))
        return record

    def fill(self, study, metrics_of, **changes):
        return [self.run(cell, metrics_of(cell), study=study.name, **changes) for cell in study.cells()]


def _nested(flat):
    nested = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def position_metrics(cell):
    """Accuracies of one cell: a seed effect that all arms share, a little noise, and `none` two points lower."""
    arm = ARMS.index((cell.overrides["model.pos_embed"], cell.overrides["model.pos_at"]))
    noise = np.random.default_rng([cell.seed, arm])
    shared = np.random.default_rng(cell.seed).normal(0, 0.01)
    level = 0.95 - 0.02 * (cell.overrides["model.pos_embed"] == "none")
    test, fewshot, val = (level + shared + noise.normal(0, 0.002) for _ in range(3))
    return {"test_acc": test, "fewshot_5": fewshot - 0.1, "val_acc": val}


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """The position study with all of its runs, only to be read."""
    lab = Lab(tmp_path_factory.mktemp("filled"))
    study = lab.positions()
    records = lab.fill(study, position_metrics)
    return SimpleNamespace(study=study, root=Path(lab.root), records=records, metrics_of=position_metrics)


class Ground:
    """One folder on which runners work, and what is to be seen there."""

    def __init__(self, root):
        self.root = root
        self.runners = []

    def folders(self):
        """The run directory of every cell that was trained."""
        return sorted(path.parent for path in self.root.rglob("trainings"))

    def trainings(self):
        """How often each cell was trained."""
        return [len((folder / "trainings").read_text().splitlines()) for folder in self.folders()]

    def pids(self):
        """The process that trained each cell last."""
        return [int((folder / "trainings").read_text().splitlines()[-1].split()[0]) for folder in self.folders()]

    def statuses(self):
        return sorted(json.loads(path.read_text())["status"] for path in self.root.rglob("record.json"))

    def server(self):
        """The fork server from which the cells in training came."""
        return int(Path(f"/proc/{self.pids()[0]}/stat").read_text().rpartition(")")[2].split()[1])

    def start(self, study, workers=2, machine=""):
        """A runner in a process of its own, on another machine if that is named."""
        arguments = [str(study.path), str(self.root), str(workers)]
        return self._kept(Runner(arguments, self.root / f"said-{time.monotonic_ns()}", {"ANOTHER_MACHINE": machine}))

    def start_on_ray(self, study, address, gpus=0):
        """A runner in a process of its own, whose cells run on a Ray cluster."""
        arguments = [str(study.path), str(self.root), address, str(gpus)]
        return self._kept(Runner(arguments, self.root / f"said-{time.monotonic_ns()}", RAY, "ray_runner.py"))

    def _kept(self, runner):
        self.runners.append(runner)
        return runner


class Runner:
    """What it says goes to a file, which no orphan of it can keep open."""

    def __init__(self, arguments, said, environment, script="trainer.py"):
        self.said = said
        with said.open("w") as file:
            command = [sys.executable, str(HERE / script), *arguments]
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment
            )

    def end(self, number=None):
        """Its exit status and what it has said, after a signal or when it is done."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=600), self.said.read_text()


@pytest.fixture
def ground(tmp_path):
    """Ends what a failed test leaves running."""
    made = Ground(tmp_path)
    yield made
    for runner in made.runners:
        runner.process.kill()
        runner.process.wait()


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import trainer

    return trainer


@pytest.fixture
def study(tmp_path):
    def make(seeds=(0, 1), settings=None, **parameters):
        grid = {"study.name": {"value": "s"}, "seed_everything": {"values": list(seeds)}} | parameters
        path = tmp_path / "sweep.yaml"
        sweep = {"method": "grid", "command": COMMAND, "parameters": grid} | (settings or {})
        path.write_text(yaml.safe_dump(sweep))
        return read_study(path)

    return make


@pytest.fixture
def planned(study):
    """Three arms: a baseline of level 0.5, one clearly better, and one too near to tell with a narrow margin."""
    settings = {"study.baseline": {"model.level": 0.5}, "study.margin": 0.0001, "study.metrics": ["test_acc"]}
    fixed = {key: {"value": value} for key, value in settings.items()}
    return study(seeds=(0, 1, 2), **{"model.level": {"values": [0.5, 0.7, 0.509]}, **fixed})


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
