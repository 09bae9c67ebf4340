"""Does a run of this config, killed and resumed, end where the unbroken one does? Found out by killing it."""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from vitexp.data.batch import Batch
from vitexp.train.checkpoint import BestWeights
from vitexp.train.command import TrainingCommand
from vitexp.train.trainer_flags import Limits

STEPS = 24
LONGEST_EPOCH = 60
"""Steps of an epoch up to which its end is part of the check unless --steps says otherwise."""


class BatchLog(L.Callback):
    """Notes each batch in a file, a line each, and ends the process when the last step is taken.

    Args:
        file: Where the lines go; the rank's number is put behind its name.
        stop: Optimizer steps after which the process ends, without any of what a run does at its end.
        kill: The step in which the process kills itself, after its backward pass; none by default.
        kill_in_validation: Whether it kills itself in the validation that follows that step instead.
    """

    def __init__(self, file: str, stop: int, kill: int = 0, kill_in_validation: bool = False) -> None:
        self.file, self.stop = file, stop
        self.kill, self.kill_in_validation = kill, kill_in_validation

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        """Cuts a step off between its gradients and its update."""
        if not self.kill_in_validation and trainer.global_step + 1 == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Cuts a validation off."""
        if self.kill_in_validation and trainer.global_step == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Notes the batch; behind the last one also the weights, and a norm for each to tell how far apart two are."""
        pixels = digest([batch.images, batch.labels])
        lines: list[dict[str, Any]] = [{"epoch": trainer.current_epoch, "batch": batch_idx}]
        lines[0] |= {"samples": batch.samples.tolist(), "pixels": pixels}
        ended = trainer.global_step >= self.stop
        if ended:
            norms = [parameter.detach().double().norm().item() for parameter in pl_module.parameters()]
            lines.append({"weights": digest(_state(pl_module, trainer)), "sums": norms})
        with Path(f"{self.file}.{trainer.global_rank}").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        if ended:
            try:
                trainer.strategy.barrier()
            finally:  # all ranks have noted what they had to; one that is gone already may end the barrier of others
                os._exit(0)


def digest(tensors: Iterable[Tensor]) -> str:
    """The bits of tensors, in their order, as 16 hexadecimal digits."""
    bits = hashlib.sha256()
    for tensor in tensors:
        bits.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return bits.hexdigest()[:16]


def _state(module: L.LightningModule, trainer: L.Trainer) -> Iterable[Tensor]:
    """What the next step and the end depend on: weights, buffers, what the optimizer remembers, the best so far."""
    states: list[Mapping[str, Any]] = [module.state_dict()]
    states += [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
    states += [one.weights for one in trainer.callbacks if isinstance(one, BestWeights)]  # type: ignore[attr-defined]
    return [value for state in states for _, value in sorted(state.items()) if isinstance(value, Tensor)]


class Cut(NamedTuple):
    """Where a run is killed; at 0 it is not."""

    step: int = 0
    in_validation: bool = False

    def __str__(self) -> str:
        where = "in the validation after" if self.in_validation else "between gradients and update of"
        return f"SIGKILL {where} step {self.step}"


class Outline(NamedTuple):
    """What the check needs to know of the run."""

    steps: int
    epoch: int
    """Optimizer steps of an epoch."""
    workers: int
    validation: int
    """Optimizer steps before the first validation; 0 where none comes."""


class Trace(NamedTuple):
    """What was noted of a run: its batches by epoch and number, and at its end its weights."""

    batches: dict[tuple[int, int], tuple[list[int], str]]
    weights: str | None
    sums: list[float]

    def others(self, whole: "Trace") -> list[tuple[int, int]]:
        """The batches that the whole run has otherwise, or not at all."""
        return sorted(place for place, batch in self.batches.items() if whole.batches.get(place) != batch)


def verify_resume(argv: Sequence[str], groups: dict[str, type]) -> int:
    """The command: prints what was done and found; exit status 1 when anything differs."""
    parser = argparse.ArgumentParser(
        prog="vitexp verify-resume",
        allow_abbrev=False,
        description="Trains a few steps of a run, unbroken and killed again and again; compares batches and weights.",
        epilog="All other flags are those of `vitexp fit`. Nothing is written but to the folder for temporary files.",
    )
    parser.add_argument("--steps", type=int, help="optimizer steps; by default past the end of an epoch, if it is near")
    parser.add_argument("--workers", type=int, help="data.workers after the last kill; by default another number")
    chosen, rest = parser.parse_known_args(list(argv))
    outline = _outline_of(TrainingCommand(["fit", *rest], groups, until="planned", weights=False))
    steps = min(chosen.steps or default_steps(outline), outline.steps)
    if steps < 4:
        raise ValueError(f"{steps} steps are too few to be interrupted; at least 4 are needed (--steps, trainer.max_*)")
    workers = chosen.workers if chosen.workers is not None else 0 if outline.workers else 2
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        return _verify(Path(folder), rest, outline, steps, workers)


def _outline_of(command: TrainingCommand) -> Outline:
    limits, data = Limits.of(command.options), command.datamodule
    validation = first_validation(command.options, limits.batches(data)) if data.val_count else 0
    return Outline(command.steps(), limits.steps_per_epoch(data), data.workers or 0, validation)


def first_validation(trainer: Mapping[str, Any], epoch_batches: int) -> int:
    """Optimizer steps before the first validation, as the trainer's options ask for it; 0 where they do not tell.

    Source: Lightning counts `val_check_interval` in batches, as a share of an epoch where it is no whole number.
    """
    interval, every = trainer["val_check_interval"], trainer["check_val_every_n_epoch"]
    interval = 1.0 if interval is None else interval
    if isinstance(interval, float):
        interval = max(1, int(epoch_batches * interval))
    if not isinstance(interval, int) or trainer["limit_val_batches"] == 0:
        return 0
    epochs, left = divmod(interval, epoch_batches) if every is None else (every - 1, interval)
    accumulated: int = trainer["accumulate_grad_batches"]
    whole = -(-epoch_batches // accumulated)
    return int(epochs * whole + (whole if left == epoch_batches else left // accumulated))


def default_steps(outline: Outline) -> int:
    """Past the end of an epoch and the first validation where they are near."""
    near = [step for step in (outline.epoch, outline.validation) if 0 < step <= LONGEST_EPOCH]
    return max(near) + 4 if near else STEPS


def cuts(outline: Outline, steps: int) -> list[Cut]:
    """Early, in the first validation, behind the first epoch's end, or else in the middle, and late."""
    validation = [Cut(outline.validation, True)] if 0 < outline.validation < steps else []
    ends = outline.epoch < steps and outline.epoch != outline.validation
    middle = validation + ([Cut(outline.epoch + 1)] if ends else []) or [Cut(steps // 2)]
    first = min(middle).step
    every = {*middle, *([Cut(first // 2 + 1)] if first > 2 else []), Cut(steps - 1)}
    return sorted(cut for cut in every if cut.step < steps)


def _verify(folder: Path, argv: list[str], outline: Outline, steps: int, workers: int) -> int:
    no_end = "" if outline.epoch < steps else ": no epoch ends in these"
    print(f"{steps} steps, an epoch has {outline.epoch}{no_end}")
    whole = _run(folder / "whole", argv, steps, Cut())
    print(f"  unbroken: {len(whole.batches)} batches, weights {whole.weights}")
    parts: list[Trace] = []
    for cut in cuts(outline, steps):
        parts.append(_run(folder / "cut", [*argv, *(["--ckpt_path=last"] if parts else [])], steps, cut))
        print(f"  {cut}: {_compared(parts[-1], whole)}")
    last = _run(folder / "cut", [*argv, "--ckpt_path=last", f"--data.workers={workers}"], steps, Cut())
    print(f"  resumed with data.workers {workers}: {_compared(last, whole)}, weights {last.weights}")
    return _verdict(whole, [*parts, last])


def _run(folder: Path, argv: list[str], steps: int, cut: Cut) -> Trace:
    """One piece of a run, in a process of its own; what it noted."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("notes.*"):
        old.unlink()
    own = {
        "run.dir": folder / "run",
        "run.wandb": "off",
        "run.checkpoint_steps": max(1, steps // 8),
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks+": f"{BatchLog.__module__}.BatchLog",
        "trainer.callbacks.file": folder / "notes",
        "trainer.callbacks.stop": steps,
        "trainer.callbacks.kill": cut.step,
        "trainer.callbacks.kill_in_validation": str(cut.in_validation).lower(),
    }
    command = [sys.executable, "-m", "vitexp.cli", "fit", *argv, *(f"--{name}={value}" for name, value in own.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != (-signal.SIGKILL if cut.step else 0):
        said = (done.stdout.strip().splitlines() or ["nothing"])[-1].removeprefix("vitexp: ")
        raise ValueError(f"a run of this config ended with exit status {done.returncode} and said: {said}")
    return _read(folder)


def _read(folder: Path) -> Trace:
    """The notes of all ranks: the samples of a global batch in the order of the ranks."""
    batches: dict[tuple[int, int], tuple[list[int], str]] = {}
    last: dict[str, Any] = {}
    for path in sorted(folder.glob("notes.*"), key=lambda path: int(path.suffix[1:])):
        for line in map(json.loads, path.read_text().splitlines()):
            if "weights" in line:
                last = last or line
                continue
            samples, pixels = batches.get((line["epoch"], line["batch"]), ([], ""))
            batches[line["epoch"], line["batch"]] = samples + line["samples"], pixels + line["pixels"]
    return Trace(batches, last.get("weights"), last.get("sums", []))


def _compared(part: Trace, whole: Trace) -> str:
    if not part.batches:
        return "no batch before that"
    (epoch, batch), others = min(part.batches), part.others(whole)
    how = f"{len(others)} of them others" if others else "the same"
    return f"{len(part.batches)} batches from epoch {epoch}, batch {batch}: {how}"


def _verdict(whole: Trace, parts: list[Trace]) -> int:
    wrong = [place for part in parts for place in part.others(whole)]
    missing = set(whole.batches) - {place for part in parts for place in part.batches}
    if wrong or missing:
        epoch, batch = min([*wrong, *missing])
        print(f"DIFFERENT: from batch {batch} of epoch {epoch} on the resumed run takes other batches")
        return 1
    if parts[-1].weights != whole.weights:
        apart = max(abs(a - b) / (abs(a) or 1.0) for a, b in zip(whole.sums, parts[-1].sums, strict=True))
        print(f"DIFFERENT: the same batches, other weights (a parameter's norm by up to {apart:.1e} of itself)")
        print("  where two unbroken runs differ too, kernels are the cause: try --trainer.deterministic=true")
        return 1
    print("EQUAL: the same batches and, bit for bit, the same weights and optimizer state")
    return 0
