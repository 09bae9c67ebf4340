"""Writes the record of a run: as running when it starts, as finished or failed when it ends."""

import platform
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn

from vitexp.learn.classify import Classify
from vitexp.record import RECORD_NAME, RunRecord, read_record, write_record

VALIDATION = ("val_acc", "val_colour_acc", "val_loss")
_PACKAGES = ("torch", "lightning", "torchmetrics", "numpy", "wandb", "vitexp")


class Recorder(L.Callback):
    """Collects what the trainer logs and keeps `record.json` true. Only rank 0 writes."""

    def __init__(self, record: RunRecord, directory: Path) -> None:
        self.record = record
        self.directory = directory
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.measured: dict[str, float] = {}
        """The final numbers as they become known, so that a run that is cut off later keeps them."""
        self.train_seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Writes the record as running, into a folder that `claim` has admitted."""
        write_record(self.record, self.directory)

    def finish(self, **changes: Any) -> RunRecord:
        """Writes the record as finished."""
        return self._end(status="finished", **changes)

    def stop(self, reason: str, **changes: Any) -> RunRecord:
        """Writes the record as stopped: the run was cut off, and what is known of it is kept."""
        return self._end(status="stopped", reason=reason, **changes)

    def fail(self, reason: str, **changes: Any) -> RunRecord:
        """Writes the record as failed, with the reason and what is known."""
        return self._end(status="failed", reason=reason, **changes)

    def _end(self, **changes: Any) -> RunRecord:
        self.record = replace(
            self.record, curves=self.curves, train_seconds=round(self._seconds(), 3), finished=now(), **changes
        )
        write_record(self.record, self.directory)
        return self.record

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock of training starts."""
        self._since = time.perf_counter()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock of training stops."""
        self.train_seconds, self._since = self._seconds(), None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the epoch's mean training loss."""
        assert isinstance(pl_module, Classify)
        self.curves.setdefault("train_loss", []).append((trainer.global_step, pl_module.take_epoch_loss()))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the validation numbers of the run's course."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._collect(trainer, VALIDATION)

    def last_validation(self, step: int) -> dict[str, float]:
        """The validation numbers after `step`, if they were measured then."""
        last = {name: self.curves[name][-1] for name in VALIDATION if self.curves.get(name)}
        return {name: value for name, (at, value) in last.items() if at == step}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"curves": {k: [list(point) for point in v] for k, v in self.curves.items()}, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up curves and clock."""
        self.curves = {name: [(int(s), float(v)) for s, v in points] for name, points in state_dict["curves"].items()}
        self.train_seconds = float(state_dict["seconds"])

    def _collect(self, trainer: L.Trainer, names: tuple[str, ...]) -> None:
        for name in names:
            value = trainer.callback_metrics.get(name)
            if value is not None:
                self.curves.setdefault(name, []).append((trainer.global_step, float(value)))

    def _seconds(self) -> float:
        return self.train_seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)


def claim(directory: Path, fingerprint: str) -> RunRecord | None:
    """The earlier record of this very run in `directory`, if there is one.

    Raises: ValueError when the directory holds a run of another config.
    """
    if not (directory / RECORD_NAME).is_file():
        return None
    earlier = read_record(directory)
    if earlier.fingerprint != fingerprint:
        raise ValueError(
            f"{directory} holds a run of another config (fingerprint {earlier.fingerprint}, now {fingerprint}); "
            "give another --run.dir, or move that folder away"
        )
    return earlier


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout the package runs from; empty when it is no checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def package_versions() -> dict[str, str]:
    """Python and the packages that can move a number."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def device_state(trainer: L.Trainer) -> dict[str, Any]:
    """What the run computes on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "type": device.type,
        "name": name,
        "world_size": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }


def _git(where: Path, *arguments: str) -> str:
    command = ["git", "-C", str(where), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
