"""One run from its first to its last line: train, measure, record, tell."""

import contextlib
import sys
from pathlib import Path
from typing import Any, Protocol

from vitexp.data.module import ShardData
from vitexp.learn.best import Best
from vitexp.learn.checkpoint import alone_in, set_aside
from vitexp.learn.classify import Classify
from vitexp.learn.config import RunConfig
from vitexp.learn.cost import train_flops
from vitexp.learn.ending import INTERRUPTED, exit_code, failure, interruption, raised_for
from vitexp.learn.initial import NONE
from vitexp.learn.interrupt import Stop
from vitexp.learn.loggers import RunLogger, tell_agent
from vitexp.learn.pipe import unbreakable_output
from vitexp.learn.plan import RunPlan
from vitexp.learn.probe import fewshot_metrics
from vitexp.learn.recorder import Recorder, code_state, device_state, now, package_versions
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.record import RunRecord

ACCURACIES = {"acc": "accuracy", "colour_acc": "colours right"}


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

    def steps(self) -> int:
        """Optimiser steps the run will take."""

    def save_config(self, path: Path) -> None:
        """Writes the resolved config."""


def fit(command: Command, arguments: dict[str, Any]) -> None:
    """Trains unless this very run is finished already; measures; writes the record."""
    arguments["weights_only"] = True
    if command.trainer.fast_dev_run:
        command.trainer.fit(**arguments)
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
    """validate or test, with the weights given or else this run's own last ones."""
    arguments["ckpt_path"], arguments["weights_only"] = checkpoint_of(command, arguments), True
    getattr(command.trainer, verb)(**arguments)


def predict(command: Command, arguments: dict[str, Any]) -> None:
    """Writes `predictions.csv`: one line per image of the test split, in the order of the shards."""
    from vitexp.learn.probe import write_predictions

    arguments["ckpt_path"], arguments["weights_only"] = checkpoint_of(command, arguments), True
    arguments["return_predictions"] = True
    batches = command.trainer.predict(**arguments)
    path = write_predictions(batches, command.datamodule, command.plan.directory / "predictions.csv")
    if command.trainer.is_global_zero:
        print(f"predictions {path}")


def checkpoint_of(command: Command, arguments: dict[str, Any]) -> str:
    """The checkpoint to read: never fresh random weights without a word.

    Raises: ValueError when none is given and this run has left none.
    """
    given = arguments.get("ckpt_path")
    if given and given != "last":
        if not Path(given).is_file():
            raise ValueError(f"--ckpt_path {given} is no file; give a checkpoint, or `last` for this run's own")
        return str(given)
    if not command.last_checkpoint.is_file():
        raise ValueError(
            f"this config has no trained weights yet ({command.last_checkpoint} is absent); "
            "train it with `vitexp fit`, or give --ckpt_path"
        )
    return str(command.last_checkpoint)


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
    """Measures what was trained, and writes the record as finished."""
    trainer, best = command.trainer, _best(command.trainer)
    command.model.conclude(best.weights if best else None)
    if command.run.checkpoint:
        trainer.save_checkpoint(command.last_checkpoint)
        stop.kept_step = trainer.global_step
    metrics = _measure(command, recorder)
    if trainer.is_global_zero:
        record = recorder.finish(**_outcome(command, metrics))
        for logger in _run_loggers(trainer):
            logger.log_end(record)
        print(summary(record, command, trainer.loggers))


def _record_end(command: Command, recorder: Recorder, stop: Stop, error: BaseException) -> None:
    """Writes why there is no finished run, with the numbers that are known; says how an interrupted one goes on."""
    if not command.trainer.is_global_zero:
        return
    step, planned = command.trainer.global_step, command.steps()
    facts = {"steps": step, "planned_steps": planned, "images_seen": command.model.images_seen}
    facts["metrics"] = recorder.last_validation(step) | recorder.measured
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
        "started": now(),
    }
    return Recorder(command.plan.record(**facts), command.plan.directory)


def _resume(command: Command, arguments: dict[str, Any]) -> dict[str, Any]:
    """`--ckpt_path last` means this run's newest checkpoint, or a fresh start when it left none."""
    if arguments.get("ckpt_path") == "last":
        found = command.last_checkpoint.is_file()
        return arguments | {"ckpt_path": str(command.last_checkpoint) if found else None}
    return arguments


def _measure(command: Command, recorder: Recorder) -> dict[str, float]:
    """The final numbers: validation and test accuracy, few-shot probes."""
    trainer = command.trainer
    metrics = recorder.measured
    best = _best(trainer)
    metrics |= best.metrics | {"best_step": float(best.step)} if best else recorder.last_validation(trainer.global_step)
    if command.datamodule.val_count and not metrics:
        found = trainer.validate(command.model, datamodule=command.datamodule, verbose=False, weights_only=True)
        metrics |= {name: float(value) for name, value in found[0].items()}
    if command.run.test and command.datamodule.test_count:
        found = trainer.test(command.model, datamodule=command.datamodule, verbose=False, weights_only=True)
        metrics |= {name: float(value) for name, value in found[0].items()}
    if command.run.shots and command.datamodule.test_count:
        command.model.to(trainer.strategy.root_device)  # the trainer leaves it on the CPU
        metrics |= fewshot_metrics(command.model, command.datamodule, command.run.shots, command.run.shot_seeds)
    plain = {"data_size": float(command.datamodule.train_count)} | metrics
    for logger in trainer.loggers:
        logger.log_metrics(plain, step=trainer.global_step)
    return metrics


def _outcome(command: Command, metrics: dict[str, float]) -> dict[str, Any]:
    model, trainer = command.model, command.trainer
    files = {"config": "config.yaml"} | ({"checkpoint": "checkpoints/last.ckpt"} if command.run.checkpoint else {})
    for logger in _run_loggers(trainer):
        if place := logger.describe():
            files["wandb"] = place[1].split("   ")[0]
    return {
        "metrics": metrics,
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
    counts = {"val": command.datamodule.val_count, "test": command.datamodule.test_count}
    lines = [""]
    for split, count in counts.items():
        if f"{split}_loss" in record.metrics:
            found = {words: record.metrics.get(f"{split}_{name}") for name, words in ACCURACIES.items()}
            shares = [f"{words} {100 * value:.2f} %   " for words, value in found.items() if value is not None]
            lines.append(f"{split:<11} {''.join(shares)}loss {record.metrics[f'{split}_loss']:.4f}   ({count} images)")
    for name, value in sorted(record.metrics.items()):
        if name.startswith("fewshot_"):
            lines.append(f"{name.removeprefix('fewshot_') + '-shot':<11} accuracy {100 * value:.2f} %   (linear probe)")
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
