"""One run from its first to its last line: train, measure, record, tell."""

import contextlib
import sys
from pathlib import Path
from typing import Any, Protocol

from vitexp.data.module import ShardData
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.record import RunRecord
from vitexp.source import package_versions
from vitexp.train.callbacks.best import Best
from vitexp.train.callbacks.checkpoint import Keeper, Stop, alone_in, set_aside
from vitexp.train.callbacks.record import Recorder, code_state, device_state, now
from vitexp.train.classes import matched
from vitexp.train.config import RunConfig
from vitexp.train.failure import INTERRUPTED, exit_code, failure, interruption, raised_for
from vitexp.train.initial import NONE
from vitexp.train.kept import checkpoint_of
from vitexp.train.loggers import RunLogger, tell_agent
from vitexp.train.measure import SPLITS, FinalNumbers, chance, results
from vitexp.train.module import Classify
from vitexp.train.plan import RunPlan, train_flops
from vitexp.train.terminal import unbreakable_output


class Command(Protocol):
    """What a session is given: the parsed parts of one run."""

    run: RunConfig
    plan: RunPlan
    trainer: Any
    model: Classify
    datamodule: ShardData
    earlier: RunRecord | None
    """What this run left in its folder before."""

    def done(self) -> bool:
        """Whether this very run has finished before."""

    @property
    def last_checkpoint(self) -> Path:
        """Where this run's newest checkpoint lies."""

    def resumes_own(self) -> bool:
        """Whether this run's own newest checkpoint is to be continued, and there is one."""

    def steps(self) -> int:
        """Optimiser steps the run will take."""

    def save_config(self, path: Path) -> None:
        """Writes the resolved config."""


def fit(command: Command, arguments: dict[str, Any]) -> None:
    """Trains unless this very run is finished already; measures; writes the record."""
    arguments["weights_only"] = True
    if command.trainer.fast_dev_run:
        command.trainer.fit(**arguments)
        if command.trainer.is_global_zero:
            print("a trial (trainer.fast_dev_run): nothing was measured for good, and there is no record")
        return
    earlier = command.earlier
    if earlier is not None and command.done():
        if command.trainer.is_global_zero:
            print(f"Finished already on {earlier.finished}; nothing trains. To train again, move its folder away.")
            print(summary(earlier, command, []))
            tell_agent(earlier, command.run, command.plan.directory)
        return
    _train_and_record(command, arguments)


def measure(command: Command, verb: str, arguments: dict[str, Any]) -> None:
    """validate or test, with the weights given or else this run's own last ones; prints, and writes nothing."""
    _take_checkpoint(command, arguments)
    getattr(command.trainer, verb)(**arguments)
    if command.trainer.is_global_zero:
        counts: dict[str, int | None] = {split: command.datamodule.count(split) for split in SPLITS}
        print("\n".join(results(command.model.measurements, counts)) or f"{verb} measured no image")


def predict(command: Command, arguments: dict[str, Any]) -> None:
    """Writes `predictions.csv`: one line per image of the test split, in the order of the shards."""
    from vitexp.train.measure import write_predictions

    _take_checkpoint(command, arguments)
    arguments["return_predictions"] = True
    batches = command.trainer.predict(**arguments)
    names = command.model.class_names or command.datamodule.class_names
    path = write_predictions(batches, command.datamodule, names, command.plan.directory / "predictions.csv")
    if command.trainer.is_global_zero:
        print(f"predictions {path}")


def _take_checkpoint(command: Command, arguments: dict[str, Any]) -> None:
    """The checkpoint that is measured, and a network with its classes, which are matched with the data's by name."""
    path = checkpoint_of(command, arguments)
    command.model, about = matched(command.model, command.datamodule, path)
    arguments |= {"ckpt_path": path, "weights_only": True, "model": command.model}
    if about and command.trainer.is_global_zero:
        print(about)


def _train_and_record(command: Command, arguments: dict[str, Any]) -> None:
    recorder, trainer = _recorder(command), command.trainer
    stop = Stop(trainer, command.last_checkpoint if command.run.checkpoint else None)
    trainer.callbacks.insert(0, recorder)  # before the keeper of checkpoints, which hold what it has collected
    trainer.callbacks.append(stop)
    alone, code = alone_in(command.plan.directory, stop.checkpoint, trainer.is_global_zero), 1
    try:
        with alone, stop, unbreakable_output():
            try:
                _start(command, recorder, arguments)
                trainer.fit(**_resume(command, arguments))
                stop.trained()
                _conclude(command, recorder, stop)
            except BaseException as error:
                code = exit_code(error)
                _record_end(command, recorder, stop, error)
                if code > INTERRUPTED:
                    raise SystemExit(code) from error
                raise raised_for(error, trainer.global_step, command.plan.directory) from error
        code = 0
    finally:
        _finish_loggers(trainer, code)


def _start(command: Command, recorder: Recorder, arguments: dict[str, Any]) -> None:
    """Says what trains, and writes the record as running and the config."""
    if command.trainer.is_global_zero:
        print(opening(recorder.record, command))
        _keep_earlier(command, arguments.get("ckpt_path"))
        recorder.start()
        command.save_config(command.plan.directory / "config.yaml")
    for logger in _run_loggers(command.trainer):
        logger.log_start(recorder.record)


def _keep_earlier(command: Command, resumed: str | None) -> None:
    """A run that starts anew, where an unfinished one has left a checkpoint, sets that aside and says so."""
    last = command.last_checkpoint
    if not last.is_file() or resumed == "last" or (resumed and last.samefile(resumed)):
        return
    earlier = command.earlier
    where = f", stopped after step {earlier.steps} of {command.steps()}" if earlier and earlier.steps else ""
    print(
        f"an unfinished run lies here{where}; this one does not continue it (--ckpt_path last would): its checkpoint "
        f"is kept as {set_aside(last)}"
    )


def _conclude(command: Command, recorder: Recorder, stop: Stop) -> None:
    """What follows training: the weights that are kept, their numbers, the record."""
    trainer, best = command.trainer, _best(command.trainer)
    if recorder.stopped and not _kept_in_mid_epoch(
        trainer
    ):  # to go on from, it must hold the weights of before the network becomes what is measured
        _save(command, stop)
    command.model.conclude(best.chosen() if best else None)
    outcome = _outcome(command)  # read on all ranks
    if trainer.is_global_zero:
        recorder.keep(**outcome)
    if not recorder.stopped:
        _save(command, stop)
    FinalNumbers(command, recorder, best).measure()
    if trainer.is_global_zero:
        record = recorder.finish()
        for logger in _run_loggers(trainer):
            logger.log_end(record)
        print(summary(record, command, trainer.loggers))


def _kept_in_mid_epoch(trainer: Any) -> bool:
    """Whether the newest checkpoint is of the last step, before Lightning took its epoch for a whole one."""
    return any(isinstance(c, Keeper) and c.cut_off == trainer.global_step for c in trainer.callbacks)


def _save(command: Command, stop: Stop) -> None:
    if command.run.checkpoint:
        command.trainer.save_checkpoint(command.last_checkpoint)
        stop.kept_step = command.trainer.global_step


def _record_end(command: Command, recorder: Recorder, stop: Stop, error: BaseException) -> None:
    """Writes why there is no finished run, with the numbers that are known; says how an interrupted one goes on."""
    if not command.trainer.is_global_zero:
        return
    step, planned = command.trainer.global_step, command.steps()
    facts = {"steps": step, "images_seen": command.model.images_seen}
    code, left = exit_code(error), command.last_checkpoint.is_file()
    reason, write = failure(error, step), recorder.fail
    if code > INTERRUPTED:
        reason, write = interruption(code, step, planned, stop.kept_step, left), recorder.stop
        print(f"vitexp: {reason}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # a full disk ends the run; it must not hide why
        write(reason, **facts)
        for logger in _run_loggers(command.trainer):
            logger.log_end(recorder.record)


def _recorder(command: Command) -> Recorder:
    facts = {
        "parameters": sum(p.numel() for p in command.model.network.parameters()),
        "data": command.datamodule.describe(),
        "code": code_state(),
        "versions": package_versions(),
        "device": device_state(command.trainer),
        "planned_steps": command.steps(),
        "started": now(),
    }
    return Recorder(command.plan.record(**facts), command.plan.directory)


def _resume(command: Command, arguments: dict[str, Any]) -> dict[str, Any]:
    """`--ckpt_path last` means this run's newest checkpoint, or a fresh start when it left none."""
    if arguments.get("ckpt_path") == "last":
        if command.resumes_own():
            return arguments | {"ckpt_path": str(command.last_checkpoint)}
        if command.trainer.is_global_zero:
            print(f"no checkpoint in {command.last_checkpoint.parent} yet: the run begins with step 0")
        return arguments | {"ckpt_path": None}
    return arguments


def _outcome(command: Command) -> dict[str, Any]:
    """What is known when training has ended: its length, its cost, whether it learned, where things lie."""
    model, trainer = command.model, command.trainer
    files = {"config": "config.yaml"} | ({"checkpoint": "checkpoints/last.ckpt"} if command.run.checkpoint else {})
    for logger in _run_loggers(trainer):
        if place := logger.describe():
            files["wandb"] = place[1].split("   ")[0]
    return {
        "learning": model.course.learning(trainer) | chance(model, command.datamodule),
        "images_seen": model.images_seen,
        "steps": trainer.global_step,
        "epochs": model.images_seen / command.datamodule.train_count,
        "train_flops": train_flops(model.config, model.images_seen),
        "files": files,
    }


def opening(record: RunRecord, command: Command) -> str:
    """The first line of a run: what trains, from which weights if they are given, to which end, on how much."""
    config, data = command.model.config, command.datamodule
    return ", ".join(
        [
            f"{network_words(config)}: {record.parameters:,} parameters",
            *([] if command.run.init == NONE else [f"from {command.run.init}"]),
            *([] if config.objective == "classify" else [f"predicts masked patches ({config.objective})"]),
            f"{data.train_count:,} training images of {data.size}x{data.size}",
            f"{command.steps():,} steps",
        ]
    )


def network_words(config: ViTConfig) -> str:
    """What a network is, by what it has: a ResNet has no positions and no readout to choose."""
    if parse_arch(config.arch, config.stem).family == "resnet":
        return f"ResNet {config.arch} ({config.resnet})"
    where = f" at {config.pos_at}" if config.pos_embed != "none" else ""
    pattern = [] if config.attention == "full" else [f"{config.attention} attention"]
    words = [f"{config.arch} ({config.stem} stem)", f"position {config.pos_embed}{where}", *pattern, config.pool]
    return ", ".join(words)


def summary(record: RunRecord, command: Command, loggers: list[Any]) -> str:
    """The last lines of a run: what came out, and where everything is."""
    # before format 2 nobody had counted
    counts = {split: record.data.get(f"{split}_images") if record.format > 1 else None for split in SPLITS}
    lines = ["", *results(record.metrics, counts)]
    if record.reason:
        lines.append(f"{record.status:<11} {record.reason}")
    lines.append(f"{'record':<11} {command.plan.directory / 'record.json'}")
    if "checkpoint" in record.files:
        lines.append(f"{'checkpoint':<11} {command.plan.directory / record.files['checkpoint']}")
    places = [logger.describe() for logger in loggers if isinstance(logger, RunLogger)]
    lines += [f"{kind:<11} {place}" for kind, place in filter(None, places)]
    return "\n".join(lines)


def _run_loggers(trainer: Any) -> list[RunLogger]:
    """The W&B loggers; on other ranks than the first they do nothing."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def _best(trainer: Any) -> Best | None:
    return next((callback for callback in trainer.callbacks if isinstance(callback, Best)), None)


def _finish_loggers(trainer: Any, code: int) -> None:
    for logger in _run_loggers(trainer):
        if trainer.is_global_zero:
            logger.finish(code)
