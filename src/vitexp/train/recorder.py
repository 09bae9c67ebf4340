"""Writes the record of a run: as running when it starts, as finished, stopped or failed when it ends."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn

from vitexp.bits import write_answers
from vitexp.data.module import ShardData
from vitexp.eval.flops import train_flops
from vitexp.nn.table import find
from vitexp.own import SLOTS
from vitexp.record import RunRecord, is_candidate, open_metrics, write_record
from vitexp.source import package_versions, source_hash
from vitexp.train import evaluators
from vitexp.train.admission import checked_identity
from vitexp.train.checkpoint import BestWeights, RunCheckpoint, Stop, take_folder
from vitexp.train.compute import compile_network, matmul_precision, threads
from vitexp.train.config import RunConfig
from vitexp.train.ending import INTERRUPTED, ending, exit_code, failure, interruption
from vitexp.train.identity import KEY, LAST_CHECKPOINT, RunIdentity, claim
from vitexp.train.loggers import run_loggers
from vitexp.train.losses import log_row
from vitexp.train.measure import callback_of, chance, final_numbers, own_parts
from vitexp.train.module import Classifier
from vitexp.train.trainer_flags import Limits


class RunRecorder(L.Callback):
    """Keeps `record.json` of a run true: as running from its start, as finished, stopped or failed at its end.

    When training has ended it measures the network, as the config asks for: validation, test, and what a `FewShotProbe`
    beside it gives. Numbers, answers to each image, `config.yaml` and the record lie in the run's folder, and W&B's
    summary gets them where its logger is the run's. Only rank 0 writes. `vitexp.from_config` makes one for a Trainer of
    yours; `vitexp fit` has one too, so both write the same record.

    Args:
        identity: The run: its resolved config, its fingerprint and its folder.
        run: What is measured and kept.
        write_config: Writes the config as YAML to a path.

    Raises: ValueError when training begins with another module, other data or another trainer than the config says, or
    in the folder of another run.
    """

    def __init__(
        self, identity: RunIdentity, run: RunConfig, write_config: Callable[[Path], None] | None = None
    ) -> None:
        self.identity, self.run, self._write_config = identity, run, write_config
        self.configured: Sequence[L.Callback] = ()
        """The trainer's callbacks that the config names; others count as parts of the run."""
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.train_seconds = 0.0
        self.compile_seconds: float | None = None
        self._computing = ExitStack()
        self._since: float | None = None
        self._record: RunRecord | None = None
        self._folder: int | None = None

    @property
    def record(self) -> RunRecord:
        """The record as it stands. Raises: RuntimeError before training has begun."""
        if self._record is None:
            raise RuntimeError("there is no record before training begins")
        return self._record

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begins the record, unless `vitexp fit` has done so."""
        if stage != "fit" or self._record is not None or trainer.fast_dev_run:
            return
        module, data = own_parts(trainer, pl_module)
        self.identity = checked_identity(self.identity, self.run, trainer, module, data, self.configured)
        if claim(self.identity, data.describe()) is not None and trainer.ckpt_path is None:
            raise ValueError(
                f"{self.identity.directory} holds this very run already; move that folder away to train it again, or "
                "give another run.dir"
            )
        if self.run.threads:  # else those of your process stay
            self._computing.enter_context(threads(self.run.threads))
        self.begin(trainer, module, data)

    def begin(self, trainer: Any, module: Classifier, data: ShardData) -> None:
        """Takes the folder, which `claim` has admitted, until `release`; writes the record as running, and the config.

        Raises: ValueError when another run holds the folder.
        """
        module.withheld = ("test",) if is_candidate(self.identity.config) else ()
        if trainer.is_global_zero:
            last = self.identity.last_checkpoint if self.run.checkpoint else None
            self._folder = take_folder(self.identity.directory, last)
        self._record = self.identity.record(
            parameters=sum(p.numel() for p in module.network.parameters()),
            parts=own_parts_of(module) | evaluators.parts_of(self.run, data),
            data=data.describe(),
            code=_code_state(),
            versions=package_versions(),
            device=_device_state(trainer),
            planned_steps=Limits.of(trainer).steps(data),
            started=_now(),
        )
        if trainer.is_global_zero:
            write_record(self.record, self.identity.directory)
            if self._write_config is not None:
                self._write_config(self.identity.directory / "config.yaml")
        for logger in run_loggers(trainer):
            logger.log_start(self.record)

    def release(self) -> None:
        """Lets go of the folder, and of how matrix products are computed."""
        self._computing.close()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def keep(self, **changes: Any) -> None:
        """Writes what has become known into the record of a run that goes on."""
        seconds: dict[str, Any] = {"train_seconds": round(self._seconds(), 3), "compile_seconds": self.compile_seconds}
        self._record = replace(self.record, curves=self.curves, **seconds, **changes)
        write_record(self._record, self.identity.directory)

    def _end(self, trainer: Any, **changes: Any) -> None:
        self.keep(finished=_now(), **changes)
        for logger in run_loggers(trainer):
            logger.log_end(self.record)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """The network is compiled, if it is to be; then the clock of training starts."""
        self._computing.enter_context(matmul_precision(self.run.matmul_precision))
        if self.run.compile:
            took = compile_network(trainer, *own_parts(trainer, pl_module))
            self.compile_seconds = round((self.compile_seconds or 0.0) + took, 3)
        self._since = time.perf_counter()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """The clock of training stops, and why it did; then the network is measured, and the record ended."""
        pl_module.compiled = None
        if self._record is None:
            return
        ended = ending(trainer, self.record.planned_steps or 0)
        self.train_seconds, self._since = self._seconds(), None
        if stop := callback_of(trainer, Stop):
            stop.trained()
        state = trainer.state.fn
        self._conclude(trainer, *own_parts(trainer, pl_module), ended)
        trainer.state.fn = state  # measuring was a stage of its own, and Lightning has yet to end this one

    def _conclude(self, trainer: Any, module: Classifier, data: ShardData, ended: dict[str, Any]) -> None:
        """What follows training: the weights that are kept, their numbers, the record."""
        best, stopped = callback_of(trainer, BestWeights), ended["status"] == "stopped"
        # Lightning has taken an epoch that was cut off for a whole one: a checkpoint from before it did is better
        cut_off = any(isinstance(c, RunCheckpoint) and c.cut_off == trainer.global_step for c in trainer.callbacks)
        if stopped and not cut_off:
            self._save(trainer)  # to go on from: with the weights of before the best or averaged ones take over
        module.conclude(best.chosen() if best else None)
        outcome = self._outcome(trainer, module, data)  # read on all ranks
        if trainer.is_global_zero:
            self.keep(**outcome)
        if not stopped:
            self._save(trainer)
        self._measure(trainer, module, data, {} if best is None else {"best_step": float(best.step)})
        if trainer.is_global_zero:
            self._end(trainer, **ended)

    def _save(self, trainer: Any) -> None:
        if self.run.checkpoint:
            trainer.save_checkpoint(self.identity.last_checkpoint)
            if stop := callback_of(trainer, Stop):
                stop.kept_step = trainer.global_step

    def _outcome(self, trainer: Any, module: Classifier, data: ShardData) -> dict[str, Any]:
        """What is known when training has ended: its length, its cost, whether it learned, where things lie."""
        files = {"config": "config.yaml"} if self._write_config is not None else {}
        files |= {"checkpoint": LAST_CHECKPOINT} if self.run.checkpoint else {}
        for logger in run_loggers(trainer):
            if place := logger.describe():
                files["wandb"] = place[1].split("   ")[0]
        return {
            "learning": module.train_loss.learning(trainer) | chance(module, data),
            "images_seen": module.images_seen,
            "steps": trainer.global_step,
            "epochs": module.images_seen / data.train_count,
            "train_flops": train_flops(module.config, module.images_seen),
            "files": files,
        }

    def _measure(self, trainer: Any, module: Classifier, data: ShardData, metrics: dict[str, float]) -> None:
        """Each number goes into the record as soon as it is known, so that whatever happens next loses nothing."""
        answers: dict[str, dict[str, Any]] = {}
        for split, found, rights in final_numbers(self.run, trainer, module, data):
            metrics |= found
            if trainer.is_global_zero:
                for name, (samples, right) in rights.items():
                    order = data.order_fingerprint(split, samples)
                    answers |= write_answers(self.identity.directory, name, right.tolist(), order)
                self.keep(metrics=dict(metrics), answers=dict(answers))
        shown = open_metrics(metrics, self.identity.config)
        log_row(trainer, {"data_size": float(data.train_count)} | shown, trainer.global_step)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Writes why there is no finished run, with the numbers that are known; says how an interrupted one goes on."""
        self._computing.close()
        if self._record is None or self.record.finished or not trainer.is_global_zero:
            return
        step, planned, code = trainer.global_step, self.record.planned_steps or 0, exit_code(exception)
        facts = {"steps": step, "images_seen": getattr(pl_module, "images_seen", 0)}
        status, reason = "failed", failure(exception, step)
        if code > INTERRUPTED:
            stop, left = callback_of(trainer, Stop), self.identity.last_checkpoint.is_file()
            status, reason = "stopped", interruption(code, step, planned, stop.kept_step if stop else -1, left)
            print(f"vitexp: {reason}", file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk ends the run; it must not hide why
            self._end(trainer, status=status, reason=reason, **facts)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Lets go of the folder after training."""
        if stage == "fit":
            self.release()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keeps the epoch's mean training loss."""
        self.curves.setdefault("train_loss", []).append((trainer.global_step, pl_module.train_loss.take_epoch(trainer)))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Keeps the validation numbers on the way."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            for name, value in pl_module.measurements.items():
                self.curves.setdefault(name, []).append((trainer.global_step, value))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Says in the checkpoint which run it is of, in plain words and numbers."""
        config = json.loads(json.dumps(self.record.config, default=str))
        checkpoint[KEY] = {"fingerprint": self.record.fingerprint, "config": config}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        curves = {name: [list(point) for point in points] for name, points in self.curves.items()}
        return {"curves": curves, "seconds": self._seconds(), "compile_seconds": self.compile_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up curves and clock."""
        self.curves = {name: [(int(s), float(v)) for s, v in points] for name, points in state_dict["curves"].items()}
        self.train_seconds = float(state_dict["seconds"])
        self.compile_seconds = state_dict.get("compile_seconds")

    def _seconds(self) -> float:
        return self.train_seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)


def own_parts_of(module: Classifier) -> dict[str, dict[str, Any]]:
    """What the record says of each part of the user's own, by option."""
    found = {}
    for axis in module.config.sources:
        part = [one for one in module.network.modules() if getattr(one, "own_axis", "") == axis]
        count = sum(parameter.numel() for one in part for parameter in one.parameters())
        facts = find(SLOTS[axis], getattr(module.config, axis)).facts()
        found[f"model.{axis}"] = facts | ({"parameters": count} if part else {})
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _code_state() -> dict[str, Any]:
    """The digest of the package's source, and commit and dirty flag of the checkout it runs from, if it is one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    state = {"source": source_hash()}
    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
        return state | {"commit": git("rev-parse", "HEAD"), "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        return state


def _device_state(trainer: Any) -> dict[str, Any]:
    """What the run computes on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    if device.type != "cuda" and sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "type": device.type,
        "name": name,
        "world_size": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }
