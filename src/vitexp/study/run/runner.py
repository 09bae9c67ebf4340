"""Runs the cells of a study, on this machine or another engine: none twice, each counted by its record."""

import argparse
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vitexp.study.certificates import certify_arms
from vitexp.study.lint import confounding, print_lint
from vitexp.study.plan import pilot_seeds
from vitexp.study.resolve import ResolvedCell, check_metrics, resolve_cells, write_cells
from vitexp.study.run import lock, processes, result
from vitexp.study.run.machine import available_cores
from vitexp.study.run.processes import LocalEngine, Parse, RayEngine, Train
from vitexp.study.run.progress import Progress
from vitexp.study.run.result import Outcome, Stale, Standing, standing_of
from vitexp.study.run.search import Search
from vitexp.study.run.until import seeds_due, summary, write_for_agents
from vitexp.study.sequence import Looks, plan_looks, read_looks, with_seeds
from vitexp.study.spec import Study, check_runs_here, read_study
from vitexp.study.table import make_table

PRELOAD = ("vitexp.preload",)
MOST_LOSSES = 3
_TICK_SECONDS = 0.25
_KEPT = "; their test numbers stay in the records until `vitexp table` has chosen (study.tune)"


def run_sweep(
    chosen: argparse.Namespace, parse: Parse, train: Train, examine: Parse, estimate: Parse, certify: Parse
) -> int:
    """`vitexp sweep`: runs a study, or with `lint` only checks it; returns the exit status."""
    checks = chosen.files[0] == "lint"
    files = chosen.files[1:] if checks else chosen.files
    if len(files) != 1:
        raise ValueError(f"one sweep file is needed, given: {' '.join(files) or 'none'}")
    study = read_study(files[0])
    extra = [f"--run.root={chosen.root}", f"--run.wandb={chosen.wandb}", "--trainer.enable_progress_bar=false"]
    if chosen.json and not checks:
        raise ValueError("--json is for `vitexp sweep lint FILE`; for results there is `vitexp table FILE --json`")
    if chosen.agents and not chosen.until_decided:
        raise ValueError("--agents has no effect alone; add --until-decided")
    if checks:
        check_runs_here(study)
        processes.preload(PRELOAD)
        parse = estimate if chosen.quick else parse
        examine_starts = None if chosen.quick else examine
        return print_lint(study, parse, examine_starts, chosen.workers or 1, extra, as_json=chosen.json)
    options = {name: getattr(chosen, name) for name in ("root", "workers", "threads", "retry", "stale")}
    options |= {"certify": certify, "extra": extra, "resume": ["--ckpt_path=last"], "engine": _engine(chosen, train)}
    if chosen.agents:
        return hand_to_agents(study, chosen.budget, Path(chosen.agents), parse, chosen.root, chosen.workers or 1, extra)
    if chosen.until_decided:
        return run_until_decided(study, chosen.budget, parse=parse, train=train, **options).exit_status
    if chosen.budget is not None:
        raise ValueError("--budget has no effect alone; add --until-decided")
    return run_study(study, parse=parse, train=train, **options).exit_status


def run_until_decided(study: Study, budget: int | None, *, root: str | Path, **options: Any) -> Outcome:
    """Trains up to each planned look the arms that are not decided; goes on where it was stopped.

    Raises: ValueError when the plan and the study do not agree, or as `run_study` does.
    """
    looks = plan_looks(study, root, budget)
    given: dict[str, int] = {}
    while (due := seeds_due(study, looks, root)) != given:
        given = due
        cells = with_seeds(study, {name: looks.seeds[:count] for name, count in due.items()})
        outcome = run_study(cells, root=root, looks=looks, **options)
        if outcome.exit_status:
            return outcome
    progress = Progress(study.name)
    for line in summary(make_table(study, root), looks):
        progress.note(line)
    return outcome


def hand_to_agents(
    study: Study, budget: int | None, path: Path, parse: Parse, root: str | Path, workers: int, extra: Sequence[str]
) -> int:
    """Writes the cells up to the next look as a sweep file, and trains none; returns the exit status.

    Finished ones come last: an agent reports them and trains none again, so that its sweep has the whole study.
    Raises: ValueError as `run_until_decided` does, and where agents could not run the cells.
    """
    looks, progress = plan_looks(study, root, budget), Progress(study.name)
    due = seeds_due(study, looks, root)
    planned = with_seeds(study, {name: looks.seeds[:count] for name, count in due.items()})
    processes.preload(PRELOAD)
    cells = resolve_cells(planned, planned.cells(), parse=parse, root=root, workers=workers, extra=extra)
    _check(planned, cells)
    write_cells(study, cells, root, {"until_decided": looks.as_stored()})
    done = [cell for cell in cells if standing_of(cell).state == "finished"]
    if left := [cell for cell in cells if cell not in done]:
        write_for_agents(study, [*left, *done], path)
        progress.note(f"{len(left)} of {len(cells)} cells have no finished run; for agents: wandb sweep {path}")
        return 0
    for line in summary(make_table(study, root), looks):
        progress.note(line)
    return 0


def run_pilot(file: str | None, count: int, root: str | Path, parse: Parse, train: Train) -> int:
    """Trains the first `count` seeds of every arm of a study; returns the exit status.

    Raises: ValueError where that is no pilot, or as `run_study` does.
    """
    if file is None:
        raise ValueError("--pilot trains here, so it needs the study's sweep file")
    study = read_study(file)
    seeds = pilot_seeds(study, count)
    extra = [f"--run.root={root}", "--run.wandb=off", "--trainer.enable_progress_bar=false"]
    outcome = run_study(
        study, parse=parse, train=train, root=root, extra=extra, resume=["--ckpt_path=last"], seeds=seeds
    )
    return outcome.exit_status


def _engine(chosen: argparse.Namespace, train: Train) -> RayEngine | None:
    """The engine that was asked for; None for this machine."""
    given = [name for name in ("ray_address", "cpus_per_run", "gpus_per_run") if getattr(chosen, name) is not None]
    if chosen.engine == "local":
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} has no effect on this machine; add --engine ray")
        return None
    cpus = chosen.threads if chosen.cpus_per_run is None else chosen.cpus_per_run
    shared = {"modules": PRELOAD, "threads": chosen.threads, "workers": chosen.workers}
    return RayEngine(train, address=chosen.ray_address, cpus=cpus, gpus=chosen.gpus_per_run or 0.0, **shared)


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
    engine: LocalEngine | RayEngine | None = None,
    looks: Looks | None = None,
    certify: Parse | None = None,
    seeds: Sequence[int] | None = None,
) -> Outcome:
    """Resolves the cells of a study, then trains each that has no finished record; Ctrl-C and SIGTERM end it.

    `parse`, `train` and `certify` are functions of cli.py, importable by name. `extra` arguments go to every cell,
    `resume` ones to cells that were cut off. Failed cells run again only with `retry`, from their first step. With
    `stale` "rerun", finished cells that other code has made are set aside and trained again. Cells run in the `engine`,
    or in `workers` processes here; not those of an arm that `certify` finds at fault, nor, with `seeds`, of other ones.

    Raises: ValueError before anything trains, when a cell is refused or the study does not separate its factors.
    """
    check_runs_here(study)
    _check_unplanned(looks, Path(root) / study.name)
    progress, cores = progress or Progress(study.name), workers or len(available_cores())
    resolve = partial(resolve_cells, study, parse=parse, root=root, workers=cores, extra=extra)
    with ExitStack() as held:
        held.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        engine = held.enter_context(closing(engine or LocalEngine(train, cores, threads)))
        processes.preload(preload, threads)
        search = held.enter_context(closing(Search(study, root, resolve))) if study.method == "bayes" else None
        if search:
            cells = search.cells
        else:
            progress.note(f"parsing {len(study.cells())} cells before anything trains{_KEPT * bool(study.config.tune)}")
            cells = resolve(study.cells())
        _check(study, cells)
        write_cells(study, cells, root, {"until_decided": looks.as_stored()} if looks else {})
        runner = _Runner(engine, progress, search, root, stale, resume)
        runner.sort([cell for cell in cells if seeds is None or cell.seed in seeds], retry)
        runner.certify(study, cells, certify, cores)
        runner.run()
    progress.end(search.summary() if search else result.untrained_lines(study, root))
    return runner.outcome


def _check_unplanned(looks: Looks | None, folder: Path) -> None:
    if looks is None and read_looks(folder):
        raise ValueError(
            f"{folder} gets seeds by a plan: go on with --until-decided, or give the study another study.name"
        )


def _check(study: Study, cells: Sequence[ResolvedCell]) -> None:
    check_metrics(study, cells)
    if study.method != "bayes" and (found := confounding(study, cells)):
        raise ValueError(f"{study.path}: {found[0].text}")


@dataclass
class _Runner:
    """Keeps cells going until none is left."""

    engine: LocalEngine | RayEngine
    progress: Progress
    search: Search | None
    root: str | Path
    stale: Stale
    resume: Sequence[str]
    outcome: Outcome = field(default_factory=Outcome)
    lost: Counter[str] = field(default_factory=Counter)
    """How often the process of a cell was ended from outside, by run directory."""

    def sort(self, cells: Sequence[ResolvedCell], retry: bool) -> None:
        """Sorts cells by what their folders hold before anything starts; cells that are the same run are one."""
        every = {cell.run_directory: cell for cell in cells}.values()
        standings = [self._place(cell, retry=retry, tell=False) for cell in every]
        records = [one.record for one in standings if one.state == "finished" and one.record is not None]
        if line := result.stale_line(records, self.stale):
            self.progress.note(line)
        self.outcome.unchosen = self.search.left if self.search else 0
        self.outcome.total = self.outcome.ended + self.outcome.to_train

    def certify(self, study: Study, cells: Sequence[ResolvedCell], certify: Parse | None, workers: int) -> None:
        """Takes the cells of arms that fail their certificate from those that wait; a search has none."""
        waiting = self.outcome.waiting
        if certify and not self.search:
            why, notes = certify_arms(study, waiting, cells, certify, self.root, workers)
            for line in (*notes, *dict.fromkeys(why.values())):
                self.progress.note(line)
            self.outcome.refused = [why[cell.run_directory] for cell in waiting if cell.run_directory in why]
            self.outcome.waiting = [cell for cell in waiting if cell.run_directory not in why]

    def run(self) -> None:
        """Ends when every cell is finished or failed and none is to be chosen any more, or at the first Ctrl-C."""
        outcome = self.outcome
        with self.progress.live():
            self.progress.start(outcome, self.engine.free())
            try:
                while outcome.to_train or outcome.running or outcome.elsewhere:
                    self._turn()
            except KeyboardInterrupt:
                outcome.interrupted = True

    def _turn(self) -> None:
        outcome = self.outcome
        while outcome.to_train and self.engine.free() > 0:
            if outcome.waiting:
                self._start(outcome.waiting.pop(0))
            elif self.search:
                cell = self.search.ask()
                outcome.unchosen = self.search.left
                if cell is not None:
                    self._place(cell)
        for folder, status in self.engine.wait(_TICK_SECONDS).items():
            self._collect(*outcome.running.pop(folder), status)
        if not outcome.running or not outcome.waiting:
            for cell in [cell for cell in outcome.elsewhere if not lock.is_held(cell.run_directory)]:
                outcome.elsewhere.remove(cell)
                self._place(cell)

    def _start(self, cell: ResolvedCell) -> None:
        if lock.is_held(cell.run_directory):
            self._leave(cell)
            return
        standing = standing_of(cell)
        if standing.to_rerun(self.stale):
            aside = result.set_aside(cell.run_directory, self.root)
            if aside is None:
                self._leave(cell)
                return
            self.progress.say(f"{cell.label}: what was there lies in {aside} now")
        elif not standing.open and standing.state != "failed":  # ended by another runner, since this one looked
            self._place(cell)
            return
        argv = [*cell.argv, *self.resume] if standing.state == "cut off" else cell.argv
        self.engine.start(argv, cell.run_directory, cell.fingerprint)
        self.outcome.running[cell.run_directory] = cell, time.monotonic()
        self.outcome.started += 1

    def _leave(self, cell: ResolvedCell) -> None:
        """To whoever holds its lock."""
        if (owner := lock.owner_of(cell.run_directory)) is not None:
            self.progress.say(f"{cell.label}: in the hands of {owner}")
        self.outcome.elsewhere.append(cell)

    def _collect(self, cell: ResolvedCell, began: float, status: int) -> None:
        """Takes up a cell whose process has ended; one that was cut off, by a signal or by its own account, goes on."""
        standing = standing_of(cell)
        stopped = standing.record is not None and standing.record.status == "stopped"
        if status == processes.BUSY:
            self.outcome.started -= 1
            self._leave(cell)
        elif standing.open and (stopped or result.cut_off(status)) and self.lost[cell.run_directory] < MOST_LOSSES:
            self.lost[cell.run_directory] += 1
            self.progress.say(f"{cell.label}: its process was ended from outside; it goes on from its last checkpoint")
            self.outcome.waiting.append(cell)
        else:
            self._place(cell, ended=(status, time.monotonic() - began))

    def _place(
        self, cell: ResolvedCell, *, ended: tuple[int, float] | None = None, retry: bool = False, tell: bool = True
    ) -> Standing:
        """Lets a cell wait, or counts it, as its folder says.

        One whose process has `ended`, with a status and after this many seconds, is over.
        """
        standing, (status, seconds) = standing_of(cell), ended or (None, 0.0)
        again = standing.open or standing.to_rerun(self.stale) or (standing.state == "failed" and retry)
        if again and not ended:
            self.outcome.waiting.append(cell)
        elif standing.state == "finished" and standing.record is not None:
            self.outcome.finished += 1
            if tell:
                self.progress.finished(cell, standing.record, seconds)
        else:
            self.outcome.failures.append(result.failure_of(cell, standing, status))
            if self.search is not None:
                self.search.failed.add(cell.run_directory)
            if tell:
                self.progress.failed(self.outcome.failures[-1])
        return standing
