"""Writes the record of a run: as running when it starts, as finished, stopped or failed when it ends."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn

from vitexp.record import RECORD_NAME, RunRecord, measured_elsewhere, read_record, write_record
from vitexp.source import source_hash
from vitexp.train.continuation import KEY
from vitexp.train.module import Classify
from vitexp.train.plan import RunPlan

# Whether training came to its end: the last planned step was taken, or a rule of the config's own ended it.

_NO_RULE = (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.NON_FINITE_METRIC)


def ending(trainer: Any, planned: int) -> dict[str, Any]:
    """Status and reason of a run whose training has just ended."""
    taken = trainer.global_step
    if taken >= planned:
        return {"status": "finished", "reason": None}
    where = f"after {taken} of {planned} planned steps"
    cause, rule = _cause(trainer), _rule(trainer)
    if cause is None and rule is not None:
        return {"status": "finished", "reason": f"early stopping {where}: {rule}"}
    more = "" if cause is None else "; --ckpt_path last goes on from there"
    return {"status": "stopped", "reason": f"{where}: {cause or _unknown(trainer)}{more}"}


def _cause(trainer: Any) -> str | None:
    """What cut training short although no plan says so."""
    timers = (callback for callback in trainer.callbacks if isinstance(callback, Timer))
    left = [seconds for timer in timers if (seconds := timer.time_remaining()) is not None]
    return "the time of trainer.max_time was up" if any(seconds <= 0 for seconds in left) else None


def _rule(trainer: Any) -> str | None:
    """What early stopping said when it ended training; a number that is not finite is no plan."""
    said = [c for c in trainer.callbacks if isinstance(c, EarlyStopping) and c.stopping_reason not in _NO_RULE]
    if not trainer.should_stop or not said:
        return None
    return str(said[0].stopping_reason_message).removesuffix(" Signaling Trainer to stop.")


def _unknown(trainer: Any) -> str:
    if any(getattr(callback, "stopping_reason", None) is _NO_RULE[1] for callback in trainer.callbacks):
        return "the number that early stopping watches was not finite"
    return "a callback ended training" if trainer.should_stop else "the epochs were shorter than planned"


class Recorder(L.Callback):
    """Collects what the trainer logs and keeps `record.json` true. Only rank 0 writes."""

    def __init__(self, record: RunRecord, directory: Path) -> None:
        self.record = record
        self.directory = directory
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.train_seconds = 0.0
        self._since: float | None = None
        self._ending: dict[str, Any] = {"status": "stopped", "reason": "training did not come to its end"}

    def start(self) -> None:
        """Writes the record as running, into a folder that `claim` has admitted."""
        write_record(self.record, self.directory)

    def keep(self, **changes: Any) -> None:
        """Writes what has become known into the record of a run that goes on."""
        self.record = replace(self.record, curves=self.curves, train_seconds=round(self._seconds(), 3), **changes)
        write_record(self.record, self.directory)

    def finish(self, **changes: Any) -> RunRecord:
        """Writes the record as finished, or as stopped when training ended before its last planned step."""
        return self._end(**self._ending, **changes)

    @property
    def stopped(self) -> bool:
        """Whether training ended before its last planned step, without a rule of the config's own."""
        return bool(self._ending["status"] == "stopped")

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
        """The clock of training stops, and why it did."""
        self._ending = ending(trainer, self.record.planned_steps or 0)
        self.train_seconds, self._since = self._seconds(), None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the epoch's mean training loss."""
        assert isinstance(pl_module, Classify)
        self.curves.setdefault("train_loss", []).append((trainer.global_step, pl_module.course.take_epoch(trainer)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the validation numbers of the run's course."""
        assert isinstance(pl_module, Classify)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            for name, value in pl_module.measurements.items():
                self.curves.setdefault(name, []).append((trainer.global_step, value))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Says in the checkpoint which run it is of, in plain words and numbers."""
        config = json.loads(json.dumps(self.record.config, default=str))
        checkpoint[KEY] = {"fingerprint": self.record.fingerprint, "config": config}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"curves": {k: [list(point) for point in v] for k, v in self.curves.items()}, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up curves and clock."""
        self.curves = {name: [(int(s), float(v)) for s, v in points] for name, points in state_dict["curves"].items()}
        self.train_seconds = float(state_dict["seconds"])

    def _seconds(self) -> float:
        return self.train_seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)


def claim(plan: RunPlan, data: Mapping[str, Any]) -> RunRecord | None:
    """The earlier record of this very run in its folder, if there is one; `data` describes the run's data.

    Raises: ValueError when the folder holds a run of another config, or one measured on other images.
    """
    if not (plan.directory / RECORD_NAME).is_file():
        return None
    earlier = read_record(plan.directory)
    if earlier.fingerprint != plan.fingerprint:
        raise ValueError(
            f"{plan.directory} holds a run of another config (fingerprint {earlier.fingerprint}, now "
            f"{plan.fingerprint}); give another --run.dir, or move that folder away"
        )
    if split := measured_elsewhere(earlier, data["order_fingerprints"]):
        raise ValueError(
            f"{plan.directory} holds this run with other {split} images or labels than {data['name']} has now; "
            "give another --run.dir, or move that folder away"
        )
    return earlier


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_state() -> dict[str, Any]:
    """The digest of the package's source, and commit and dirty flag of the checkout it runs from, if it is one."""
    here, state = Path(__file__).parent, {"source": source_hash()}
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return state | {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return state


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
