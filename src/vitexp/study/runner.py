"""Runs the cells of a study on this machine: each in its own process, none twice, each counted by its record."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from vitexp.study import lock
from vitexp.study.plan import PlannedCell, plan_study
from vitexp.study.progress import Progress
from vitexp.study.result import Failure, Outcome, failure_of, record_of
from vitexp.study.spec import Study
from vitexp.study.worker import BUSY, Parse, Train, fork_server, kill, train_cell, visible_gpus

PRELOAD = ("vitexp.preload",)
_TICK_SECONDS = 0.25
_END_SECONDS = 10.0


@dataclass
class _Work:
    """Where each cell stands; the lists are disjoint and together hold every cell once."""

    waiting: list[PlannedCell]
    running: dict[BaseProcess, tuple[PlannedCell, int, float]] = field(default_factory=dict)
    elsewhere: list[PlannedCell] = field(default_factory=list)
    finished: list[PlannedCell] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    started: int = 0


def run_study(
    study: Study,
    *,
    parse: Parse,
    train: Train,
    root: str | Path = "runs",
    workers: int | None = None,
    threads: int = 1,
    retry: bool = False,
    extra: Sequence[str] = (),
    resume: Sequence[str] = (),
    preload: Sequence[str] = PRELOAD,
    progress: Progress | None = None,
) -> Outcome:
    """Plans the study, then trains every cell that has no finished record.

    `parse` and `train` are functions of the door, importable by name. `extra` arguments go to every cell, `resume` ones
    to cells that an earlier runner left unfinished. Failed cells are run again only with `retry`.

    Raises: ValueError before anything trains, when a cell is refused or its directory holds another run.
    """
    if study.early_terminate:
        raise ValueError(f"{study.path}: early_terminate needs W&B's own controller; take it out to run here")
    started = time.monotonic()
    workers = workers or len(os.sched_getaffinity(0))
    progress = progress or Progress(study.name)
    progress.plan(len(study.cells()))
    context = fork_server(preload, threads)
    planned = plan_study(study, parse=parse, context=context, root=root, workers=workers, extra=extra)
    runner = _Runner(context, train, workers, resume, _sort(planned, retry))
    interrupted = False
    with progress, _termination_as_interrupt():
        try:
            runner.run(progress)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            runner.stop()
    work = runner.work
    seconds = time.monotonic() - started
    outcome = Outcome(len(work.finished), work.started, tuple(work.failures), interrupted, seconds)
    progress.end(outcome)
    return outcome


def _sort(planned: Sequence[PlannedCell], retry: bool) -> _Work:
    """Where each cell stands before anything starts; cells that are one and the same run count once."""
    work = _Work(waiting=[])
    for cell in {cell.run_directory: cell for cell in planned}.values():
        record = record_of(cell)
        if record is not None and record.status == "finished":
            work.finished.append(cell)
        elif record is not None and record.status == "failed" and not retry:
            work.failures.append(failure_of(cell, record, None))
        else:
            work.waiting.append(cell)
    return work


class _Runner:
    """Keeps up to `workers` cells going until none is left."""

    def __init__(
        self, context: ForkServerContext, train: Train, workers: int, resume: Sequence[str], work: _Work
    ) -> None:
        self.context = context
        self.train = train
        self.slots = list(range(workers))
        self.resume = resume
        self.work = work
        self.devices = visible_gpus()

    def run(self, progress: Progress) -> None:
        """Ends when every cell is finished or failed."""
        work = self.work
        progress.start(len(work.finished), work.failures, len(work.waiting), len(self.slots))
        while work.waiting or work.running or work.elsewhere:
            while work.waiting and self.slots:
                self._start(work.waiting.pop(0))
            wait([process.sentinel for process in work.running], _TICK_SECONDS)
            for process in [process for process in work.running if not process.is_alive()]:
                self._collect(process, progress)
            if not work.running or not work.waiting:
                self._look_elsewhere(progress)
            running = [(cell, began) for cell, _, began in work.running.values()]
            progress.show(running, len(work.waiting), len(work.elsewhere))

    def stop(self) -> None:
        """Ends what still runs. Its records stay as running, so that the next call of the runner goes on with them."""
        for process in self.work.running:
            kill(process)
        for process in self.work.running:
            process.join(_END_SECONDS)

    def _start(self, cell: PlannedCell) -> None:
        if lock.is_held(cell.run_directory):
            self.work.elsewhere.append(cell)
            return
        slot = self.slots.pop(0)
        left = record_of(cell)
        argv = [*cell.argv, *self.resume] if left is not None and left.status == "running" else cell.argv
        environment = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {}
        process = self.context.Process(
            target=train_cell, args=(self.train, argv, cell.run_directory, cell.fingerprint, environment)
        )
        process.start()
        self.work.started += 1
        self.work.running[process] = (cell, slot, time.monotonic())

    def _collect(self, process: BaseProcess, progress: Progress) -> None:
        cell, slot, began = self.work.running.pop(process)
        process.join()
        self.slots.append(slot)
        status = process.exitcode
        process.close()
        if status == BUSY:
            self.work.started -= 1
            self.work.elsewhere.append(cell)
        else:
            self._settle(cell, status, time.monotonic() - began, progress)

    def _settle(self, cell: PlannedCell, status: int | None, seconds: float, progress: Progress) -> None:
        """Counts a cell by its record."""
        record = record_of(cell)
        if record is not None and record.status == "finished":
            self.work.finished.append(cell)
            progress.finished(cell, record, seconds)
            return
        failure = failure_of(cell, record, status)
        self.work.failures.append(failure)
        progress.failed(failure)

    def _look_elsewhere(self, progress: Progress) -> None:
        """Takes up what another runner has finished, failed, or left behind."""
        for cell in list(self.work.elsewhere):
            if lock.is_held(cell.run_directory):
                continue
            self.work.elsewhere.remove(cell)
            record = record_of(cell)
            if record is not None and record.status != "running":
                self._settle(cell, None, 0.0, progress)
            else:
                self.work.waiting.append(cell)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a study as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
