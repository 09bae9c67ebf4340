"""One run from its first to its last line: train, measure, record, tell."""

import contextlib
import signal
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vitexp.data.module import ShardData
from vitexp.learn.best import Best
from vitexp.learn.checkpoint import Keeper
from vitexp.learn.classify import Classify
from vitexp.learn.config import RunConfig
from vitexp.learn.cost import train_flops
from vitexp.learn.initial import NONE
from vitexp.learn.kept import checkpoint_of
from vitexp.learn.loggers import RunLogger, tell_agent
from vitexp.learn.plan import RunPlan
from vitexp.learn.probe import fewshot_metrics
from vitexp.learn.recorder import Recorder, code_state, device_state, now
from vitexp.learn.sigterm import end_together
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.record import RunRecord
from vitexp.source import package_versions

ACCURACIES = {"acc": "accuracy", "colour_acc": "colours right"}
INTERRUPTED = 128
"""Exit statuses of an interrupted run: this plus the signal's number, as shells do. Lightning itself would say 0."""


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


def _train_and_record(command: Command, arguments: dict[str, Any]) -> None:
    recorder = _recorder(command)
    trainer = command.trainer
    end_together(trainer)
    trainer.callbacks.insert(0, recorder)  # before the keeper of checkpoints, which hold what it has collected
    code = 1
    try:
        if trainer.is_global_zero:
            print(opening(recorder.record, command))
            recorder.start()
            command.save_config(command.plan.directory / "config.yaml")
        for logger in _run_loggers(trainer):
            logger.log_start(recorder.record)
        trainer.fit(**_resume(command, arguments))
        _keep_weights(command, recorder)
        metrics = _measure(command, recorder)
        if trainer.is_global_zero:
            record = recorder.finish(**_outcome(command, metrics))
            for logger in _run_loggers(trainer):
                logger.log_end(record)
            print(summary(record, command, trainer.loggers))
        code = 0
    except BaseException as error:
        code = _exit_code(error)
        if trainer.is_global_zero:
            with contextlib.suppress(OSError):  # a full disk ends the run; it must not hide why
                failed = recorder.fail(_reason(error, trainer))
                for logger in _run_loggers(trainer):
                    logger.log_end(failed)
        if code > INTERRUPTED:
            raise SystemExit(code) from error
        raise
    finally:
        _finish_loggers(trainer, code)


def _keep_weights(command: Command, recorder: Recorder) -> None:
    """The network becomes what is measured; the checkpoint of a stopped run is of before, to go on from."""
    if recorder.stopped and not _kept_in_mid_epoch(command.trainer):
        _save(command)
    best = _best(command.trainer)
    command.model.conclude(best.weights if best else None)
    if not recorder.stopped:
        _save(command)


def _kept_in_mid_epoch(trainer: Any) -> bool:
    """Whether the newest checkpoint is of the last step, before Lightning took its epoch for a whole one."""
    return any(isinstance(c, Keeper) and c.cut_off == trainer.global_step for c in trainer.callbacks)


def _save(command: Command) -> None:
    if command.run.checkpoint:
        command.trainer.save_checkpoint(command.last_checkpoint)


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


def _measure(command: Command, recorder: Recorder) -> dict[str, float]:
    """The final numbers: validation and test accuracy, few-shot probes."""
    trainer = command.trainer
    metrics: dict[str, float] = {}
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


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SIGTERMException):
        return INTERRUPTED + signal.SIGTERM
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return INTERRUPTED + signal.SIGINT
    return 1


def _reason(error: BaseException, trainer: Any) -> str:
    step = f"in step {trainer.global_step} (epoch {trainer.current_epoch})"
    if isinstance(error, SIGTERMException):
        return f"ended by SIGTERM {step}; go on with --ckpt_path last"
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return f"interrupted {step}; go on with --ckpt_path last"
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory {step}: {error}"
    return f"{type(error).__name__}: {error}"
