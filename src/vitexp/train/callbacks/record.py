"""Writes the record of a run: as running when it starts, as finished, stopped or failed when it ends."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn

from vitexp.data.module import ShardData
from vitexp.record import RunRecord, write_record
from vitexp.source import package_versions
from vitexp.train.admission import checked_plan, claim, code_state, device_state, now, own_parts
from vitexp.train.callbacks.best import BestWeights
from vitexp.train.callbacks.checkpoint import RunCheckpoint, Stop, alone_in
from vitexp.train.config import RunConfig
from vitexp.train.continuation import KEY
from vitexp.train.failure import INTERRUPTED, exit_code, failure, interruption
from vitexp.train.loggers import RunLogger
from vitexp.train.measure import FinalNumbers, callback_of, chance
from vitexp.train.module import Classifier
from vitexp.train.plan import RunPlan, train_flops
from vitexp.train.trainer_flags import Limits

LAST_CHECKPOINT = "checkpoints/last.ckpt"

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


class RunRecorder(L.Callback):
    """Keeps `record.json` of a run true: as running from its start, as finished, stopped or failed at its end.

    When training has ended it measures the network, as the config asks for: validation, test, and what a `FewShotProbe`
    beside it gives. Numbers, answers to each image, `config.yaml` and the record lie in `directory`, and W&B's summary
    gets them where its logger is the run's. Only rank 0 writes. `vitexp.from_config` makes one for a Trainer of yours;
    `vitexp fit` has one too, so both write the same record.

    Args:
        plan: The run: its resolved config, its fingerprint and its folder.
        run: What is measured and kept.
        write_config: Writes the config as YAML to a path.

    Raises: ValueError when training begins with another module, other data or another trainer than the config says, or
    in the folder of another run.
    """

    def __init__(self, plan: RunPlan, run: RunConfig, write_config: Callable[[Path], None] | None = None) -> None:
        self.plan, self.run, self._write_config = plan, run, write_config
        self.configured: Sequence[L.Callback] = ()
        """The trainer's callbacks that the config names; others count as parts of the run."""
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.train_seconds = 0.0
        self._since: float | None = None
        self._record: RunRecord | None = None
        self._ending: dict[str, Any] = {"status": "stopped", "reason": "training did not come to its end"}
        self._held = ExitStack()

    @property
    def record(self) -> RunRecord:
        """The record as it stands. Raises: RuntimeError before training has begun."""
        if self._record is None:
            raise RuntimeError("there is no record before training begins")
        return self._record

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.plan.directory

    @property
    def last_checkpoint(self) -> Path:
        """Where the run's newest checkpoint lies."""
        return self.directory / LAST_CHECKPOINT

    def prepare(self, trainer: Any, module: Classifier, data: ShardData) -> RunRecord:
        """The record of the run that is about to begin, which nothing has been written of."""
        self._record = self.plan.record(
            parameters=sum(p.numel() for p in module.network.parameters()),
            data=data.describe(),
            code=code_state(),
            versions=package_versions(),
            device=device_state(trainer),
            planned_steps=Limits.of(trainer).steps(data),
            started=now(),
        )
        return self._record

    def hold(self, trainer: Any) -> None:
        """Holds the run's folder until `release`. Raises: ValueError when another run holds it."""
        checkpoint = self.last_checkpoint if self.run.checkpoint else None
        self._held.enter_context(alone_in(self.directory, checkpoint, trainer.is_global_zero))

    def release(self) -> None:
        """Lets go of the folder."""
        self._held.close()

    def start(self, trainer: Any) -> None:
        """Writes the record as running, and the config, into a folder that `claim` has admitted."""
        if trainer.is_global_zero:
            write_record(self.record, self.directory)
            if self._write_config is not None:
                self._write_config(self.directory / "config.yaml")
        for logger in run_loggers(trainer):
            logger.log_start(self.record)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begins the record, unless `vitexp fit` has done so."""
        if stage != "fit" or self._record is not None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module, data = own_parts(trainer, pl_module)
        self.plan = checked_plan(self.plan, self.run, trainer, module, data, self.configured)
        if claim(self.plan, data.describe()) is not None and trainer.ckpt_path is None:
            raise ValueError(
                f"{self.directory} holds this very run already; move that folder away to train it again, or give "
                "another run.dir"
            )
        self.hold(trainer)
        self.prepare(trainer, module, data)
        self.start(trainer)

    def keep(self, **changes: Any) -> None:
        """Writes what has become known into the record of a run that goes on."""
        self._record = replace(self.record, curves=self.curves, train_seconds=round(self._seconds(), 3), **changes)
        write_record(self._record, self.directory)

    @property
    def stopped(self) -> bool:
        """Whether training ended before its last planned step, without a rule of the config's own."""
        return bool(self._ending["status"] == "stopped")

    def _end(self, **changes: Any) -> None:
        self.keep(finished=now(), **changes)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock of training starts."""
        self._since = time.perf_counter()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock of training stops, and why it did; then the network is measured, and the record ended."""
        if self._record is None:
            return
        self._ending = ending(trainer, self.record.planned_steps or 0)
        self.train_seconds, self._since = self._seconds(), None
        stop = callback_of(trainer, Stop)
        if stop is not None:
            stop.trained()
        module, data = own_parts(trainer, pl_module)
        state = trainer.state.fn
        self._conclude(trainer, module, data, stop)
        trainer.state.fn = state  # measuring was a stage of its own, and Lightning has yet to end this one

    def _conclude(self, trainer: Any, module: Classifier, data: ShardData, stop: Stop | None) -> None:
        """What follows training: the weights that are kept, their numbers, the record."""
        best = callback_of(trainer, BestWeights)
        if self.stopped and not _kept_in_mid_epoch(trainer):
            self._save(trainer, stop)  # to go on from: with the weights of before the best or averaged ones take over
        module.conclude(best.chosen() if best else None)
        outcome = self._outcome(trainer, module, data)  # read on all ranks
        if trainer.is_global_zero:
            self.keep(**outcome)
        if not self.stopped:
            self._save(trainer, stop)
        FinalNumbers(self.run, trainer, module, data, self.directory, self._keep_numbers).measure()
        if trainer.is_global_zero:
            self._end(**self._ending)
            for logger in run_loggers(trainer):
                logger.log_end(self.record)

    def _keep_numbers(self, metrics: dict[str, float], answers: dict[str, Any]) -> None:
        self.keep(metrics=metrics, answers=answers)

    def _save(self, trainer: Any, stop: Stop | None) -> None:
        if self.run.checkpoint:
            trainer.save_checkpoint(self.last_checkpoint)
            if stop is not None:
                stop.kept_step = trainer.global_step

    def _outcome(self, trainer: Any, module: Classifier, data: ShardData) -> dict[str, Any]:
        """What is known when training has ended: its length, its cost, whether it learned, where things lie."""
        files = {"config": "config.yaml"} if self._write_config is not None else {}
        files |= {"checkpoint": LAST_CHECKPOINT} if self.run.checkpoint else {}
        for logger in run_loggers(trainer):
            if place := logger.describe():
                files["wandb"] = place[1].split("   ")[0]
        return {
            "learning": module.course.learning(trainer) | chance(module, data),
            "images_seen": module.images_seen,
            "steps": trainer.global_step,
            "epochs": module.images_seen / data.train_count,
            "train_flops": train_flops(module.config, module.images_seen),
            "files": files,
        }

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Writes why there is no finished run, with the numbers that are known; says how an interrupted one goes on."""
        if self._record is None or self.record.finished or not trainer.is_global_zero:
            return
        step, planned = trainer.global_step, self.record.planned_steps or 0
        facts = {"steps": step, "images_seen": getattr(pl_module, "images_seen", 0)}
        code, left = exit_code(exception), self.last_checkpoint.is_file()
        status, reason = "failed", failure(exception, step)
        if code > INTERRUPTED:
            stop = callback_of(trainer, Stop)
            status = "stopped"
            reason = interruption(code, step, planned, -1 if stop is None else stop.kept_step, left)
            print(f"vitexp: {reason}", file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk ends the run; it must not hide why
            self._end(status=status, reason=reason, **facts)
            for logger in run_loggers(trainer):
                logger.log_end(self.record)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets go of the folder after training."""
        if stage == "fit":
            self.release()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the epoch's mean training loss."""
        assert isinstance(pl_module, Classifier)
        self.curves.setdefault("train_loss", []).append((trainer.global_step, pl_module.course.take_epoch(trainer)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the validation numbers of the run's course."""
        assert isinstance(pl_module, Classifier)
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


def _kept_in_mid_epoch(trainer: Any) -> bool:
    """Whether the newest checkpoint is of the last step, before Lightning took its epoch for a whole one."""
    return any(isinstance(c, RunCheckpoint) and c.cut_off == trainer.global_step for c in trainer.callbacks)


def run_loggers(trainer: Any) -> list[RunLogger]:
    """The W&B loggers; on other ranks than the first they do nothing."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
