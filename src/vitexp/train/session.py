"""What the commands fit, validate, test and predict do with a parsed config, and what they print."""

from pathlib import Path
from typing import Any, Protocol

from vitexp.data.module import ShardData
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.record import RunRecord
from vitexp.train.callbacks.checkpoint import Stop, set_aside
from vitexp.train.callbacks.record import RunRecorder, run_loggers
from vitexp.train.classes import matched
from vitexp.train.config import RunConfig
from vitexp.train.failure import INTERRUPTED, exit_code, raised_for
from vitexp.train.initial import NONE
from vitexp.train.kept import checkpoint_of
from vitexp.train.loggers import RunLogger, tell_agent
from vitexp.train.measure import SPLITS, results
from vitexp.train.module import Classifier
from vitexp.train.plan import RunPlan
from vitexp.train.terminal import unbreakable_output


class Command(Protocol):
    """What a session is given: the parsed parts of one run."""

    run: RunConfig
    plan: RunPlan
    recorder: RunRecorder
    trainer: Any
    model: Classifier
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
    recorder, trainer = command.recorder, command.trainer
    stop = Stop(trainer, recorder.last_checkpoint if command.run.checkpoint else None)
    trainer.callbacks.append(stop)
    code = 1
    recorder.hold(trainer)
    try:
        with stop, unbreakable_output():
            try:
                _start(command, recorder, arguments)
                trainer.fit(**_resume(command, arguments))
                if trainer.is_global_zero:
                    print(summary(recorder.record, command, trainer.loggers))
            except BaseException as error:
                code = exit_code(error)
                recorder.on_exception(trainer, command.model, error)
                if code > INTERRUPTED:
                    raise SystemExit(code) from error
                raise raised_for(error, trainer.global_step, recorder.directory) from error
        code = 0
    finally:
        recorder.release()
        _finish_loggers(trainer, code)


def _start(command: Command, recorder: RunRecorder, arguments: dict[str, Any]) -> None:
    """Says what trains, and writes the record as running and the config."""
    record = recorder.prepare(command.trainer, command.model, command.datamodule)
    if command.trainer.is_global_zero:
        print(opening(record, command))
        _keep_earlier(command, arguments.get("ckpt_path"))
    recorder.start(command.trainer)


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


def _resume(command: Command, arguments: dict[str, Any]) -> dict[str, Any]:
    """`--ckpt_path last` means this run's newest checkpoint, or a fresh start when it left none."""
    if arguments.get("ckpt_path") == "last":
        if command.resumes_own():
            return arguments | {"ckpt_path": str(command.last_checkpoint)}
        if command.trainer.is_global_zero:
            print(f"no checkpoint in {command.last_checkpoint.parent} yet: the run begins with step 0")
        return arguments | {"ckpt_path": None}
    return arguments


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


def _finish_loggers(trainer: Any, code: int) -> None:
    for logger in run_loggers(trainer):
        if trainer.is_global_zero:
            logger.finish(code)
