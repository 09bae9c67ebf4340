"""Runs the cells of a study, on this machine or another engine: none twice, each counted by its record."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from vitexp.record import RunRecord
from vitexp.study.lint import confounding
from vitexp.study.plan import PlannedCell, check_metrics, plan_cells, write_plan
from vitexp.study.run import lock
from vitexp.study.run.engines import Engine, LocalEngine
from vitexp.study.run.progress import Progress
from vitexp.study.run.result import (
    Failure,
    Outcome,
    Stale,
    Standing,
    cut_off,
    differences,
    failure_of,
    set_aside,
    standing_of,
)
from vitexp.study.run.result import line as stale_line
from vitexp.study.run.search import Search
from vitexp.study.run.worker import BUSY, Parse, Train, fork_server
from vitexp.study.spec import Study, check_runs_here

PRELOAD = ("vitexp.preload",)
MOST_LOSSES = 3
_TICK_SECONDS = 0.25


@dataclass
class _Work:
    """Where each cell stands; the lists are disjoint and together hold every cell once."""

    waiting: list[PlannedCell]
    running: dict[Hashable, tuple[PlannedCell, float]] = field(default_factory=dict)
    elsewhere: list[PlannedCell] = field(default_factory=list)
    finished: list[PlannedCell] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    """Of the cells that were finished before, those to be run again included."""
    started: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """How often the process of a cell was ended from outside, by run directory."""


def run_study(
    study: Study,
    *,
    parse: Parse,
    train: Train,
    root: str | Path = "runs",
    workers: int | None = None,
    threads: int = 1,
    retry: bool = False,
    stale: Stale = "keep",
    extra: Sequence[str] = (),
    resume: Sequence[str] = (),
    preload: Sequence[str] = PRELOAD,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Outcome:
    """Plans the study, then trains every cell that has no finished record.

    `parse` and `train` are functions of cli.py, importable by name. `extra` arguments go to every cell, `resume` ones
    to cells that were cut off. Failed cells are run again only with `retry`, and from their first step. With `stale`
    "rerun", finished cells that other code has made are set aside and trained again. Without an `engine`, cells run in
    `workers` processes of this machine.

    Raises: ValueError before anything trains, when a cell is refused or the study does not separate its factors.
    """
    check_runs_here(study)
    started = time.monotonic()
    progress = progress or Progress(study.name)
    context = fork_server(preload, threads)
    cores = workers or len(os.sched_getaffinity(0))
    planner = partial(plan_cells, study, parse=parse, context=context, root=root, workers=cores, extra=extra)
    with ExitStack() as held:
        if engine is not None:
            held.callback(engine.close)
        search = held.enter_context(closing(Search(study, root, planner))) if study.method == "bayes" else None
        cells = search.cells() if search else study.cells()
        progress.plan(len(cells))
        planned = planner(cells)
        _check(study, planned)
        write_plan(study, planned, root)
        if search:
            search.resume(planned)
        work = _sort(planned, retry, stale)
        progress.note(stale_line(work.records, stale))
        where = engine or LocalEngine(context, train, workers)
        runner = _Runner(where, resume, work, progress, search, root, stale)
        interrupted = _run_until_interrupted(runner)
    outcome = Outcome(len(work.finished), work.started, tuple(work.failures), interrupted, time.monotonic() - started)
    progress.end(outcome, search.summary() if search else ())
    return outcome


def _check(study: Study, planned: Sequence[PlannedCell]) -> None:
    """Raises: ValueError for metrics that no cell will measure, and for factors that no arm separates."""
    check_metrics(study, planned)
    if study.method != "bayes" and (found := confounding(study, planned)):
        raise ValueError(f"{study.path}: {found[0].text}")


def _run_until_interrupted(runner: "_Runner") -> bool:
    """Runs to the end, or to the first Ctrl-C or SIGTERM; whether it was one of these."""
    with runner.progress, _termination_as_interrupt():
        try:
            runner.run()
        except KeyboardInterrupt:
            return True
        finally:
            runner.engine.stop(list(runner.work.running))
    return False


def _sort(planned: Sequence[PlannedCell], retry: bool, stale: Stale) -> _Work:
    """Where each cell stands before anything starts; cells that are one and the same run count once."""
    work = _Work(waiting=[])
    for cell in {cell.run_directory: cell for cell in planned}.values():
        standing = standing_of(cell)
        if standing.state == "finished" and standing.record is not None:
            work.records.append(standing.record)
        if standing.state in ("absent", "cut off") or is_to_rerun(standing, stale):
            work.waiting.append(cell)
        elif standing.state == "finished":
            work.finished.append(cell)
        elif standing.state == "failed" and retry:
            work.waiting.append(cell)
        else:
            work.failures.append(failure_of(cell, standing, None))
    return work


def is_to_rerun(standing: Standing, stale: Stale) -> bool:
    """Whether a finished record is to be set aside: other code made it, or it has another length than the cell."""
    if stale == "keep" or standing.record is None:
        return False
    return standing.state == "short" or (standing.state == "finished" and bool(differences(standing.record)))


class _Runner:
    """Keeps cells going until none is left."""

    def __init__(
        self,
        engine: Engine,
        resume: Sequence[str],
        work: _Work,
        progress: Progress,
        search: Search | None,
        root: str | Path,
        stale: Stale,
    ) -> None:
        self.engine = engine
        self.resume = resume
        self.work = work
        self.progress = progress
        self.search = search
        self.root, self.stale = root, stale

    def run(self) -> None:
        """Ends when every cell is finished or failed, and none is to be chosen any more."""
        work = self.work
        waiting = len(work.waiting) + self._unchosen()
        self.progress.start(len(work.finished), work.failures, waiting, self.engine.free(0))
        while work.waiting or work.running or work.elsewhere or self._unchosen():
            while (work.waiting or self._unchosen()) and self.engine.free(len(work.running)) > 0:
                self._start(work.waiting.pop(0)) if work.waiting else self._choose()
            for job, status in self.engine.wait(list(work.running), _TICK_SECONDS).items():
                self._collect(job, status)
            if not work.running or not work.waiting:
                self._look_elsewhere()
            running = [(cell, began) for cell, began in work.running.values()]
            self.progress.show(running, len(work.waiting) + self._unchosen(), len(work.elsewhere))

    def _unchosen(self) -> int:
        return self.search.left if self.search else 0

    def _choose(self) -> None:
        """One more cell, from the results so far; one that was chosen before is not run again."""
        assert self.search is not None
        cell, repeated = self.search.ask()
        if repeated or standing_of(cell).state in ("absent", "cut off"):
            self.work.waiting += [] if repeated else [cell]
        else:
            self._settle(cell, None, 0.0)

    def _start(self, cell: PlannedCell) -> None:
        if lock.is_held(cell.run_directory):
            self._leave(cell)
            return
        owner, standing = lock.owner_of(cell.run_directory), standing_of(cell)
        if is_to_rerun(standing, self.stale):
            aside = set_aside(cell.run_directory, self.root)
            if aside is None:
                self._leave(cell)
                return
            self.progress.say(f"{cell.label}: what was there lies in {aside} now")
        elif standing.state not in ("absent", "cut off", "failed"):  # by another runner, since this one looked
            self._settle(cell, None, 0.0)
            return
        if owner is not None and owner.boot != lock.boot_id():
            self.progress.say(f"{cell.label}: taken over from {owner}, which has been silent")
        argv = [*cell.argv, *self.resume] if standing.state == "cut off" else cell.argv
        self.work.running[self.engine.start(cell, argv)] = cell, time.monotonic()
        self.work.started += 1

    def _collect(self, job: Hashable, status: int) -> None:
        cell, began = self.work.running.pop(job)
        if status == BUSY:
            self.work.started -= 1
            self._leave(cell)
        elif self._goes_on(cell, status):
            self.work.lost[cell.run_directory] += 1
            self.progress.say(f"{cell.label}: its process was ended from outside; it goes on from its last checkpoint")
            self.work.waiting.append(cell)
        else:
            self._settle(cell, status, time.monotonic() - began)

    def _goes_on(self, cell: PlannedCell, status: int) -> bool:
        """Whether a cell whose process has ended was cut off, by a signal or by its own account; not for ever."""
        standing = standing_of(cell)
        by_itself = standing.state == "cut off" and standing.record is not None and standing.record.status == "stopped"
        unfinished = standing.state in ("absent", "cut off")
        return unfinished and (by_itself or cut_off(status)) and self.work.lost[cell.run_directory] < MOST_LOSSES

    def _leave(self, cell: PlannedCell) -> None:
        """To whoever holds its lock."""
        if (owner := lock.owner_of(cell.run_directory)) is not None:
            self.progress.say(f"{cell.label}: in the hands of {owner}")
        self.work.elsewhere.append(cell)

    def _settle(self, cell: PlannedCell, status: int | None, seconds: float) -> None:
        """Counts a cell by its record."""
        standing = standing_of(cell)
        if self.search is not None:
            self.search.tell(cell, standing.record)
        if standing.state == "finished" and standing.record is not None:
            self.work.finished.append(cell)
            self.progress.finished(cell, standing.record, seconds)
            return
        failure = failure_of(cell, standing, status)
        self.work.failures.append(failure)
        self.progress.failed(failure)

    def _look_elsewhere(self) -> None:
        """Takes up what another runner has finished, failed, or left behind."""
        for cell in list(self.work.elsewhere):
            if lock.is_held(cell.run_directory):
                continue
            self.work.elsewhere.remove(cell)
            if standing_of(cell).state in ("absent", "cut off"):
                self.work.waiting.append(cell)
            else:
                self._settle(cell, None, 0.0)


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
