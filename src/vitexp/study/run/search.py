"""A study whose cells are chosen one by one from the results so far, and the file from which it goes on.

The file holds points only; how each ended is read from its record. Points come from Optuna's tree-structured Parzen
estimator (TPE). A point follows from the seed, its number and the trials before it, and from nothing else. So no
sampler has a state that a killed runner could lose, and running trials count as bad ones (the constant liar) that
parallel workers avoid.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vitexp import metrics
from vitexp.record import RunRecord, write_atomically
from vitexp.study import space
from vitexp.study.cells import Cell, make_cell
from vitexp.study.resolve import ResolvedCell
from vitexp.study.run import lock
from vitexp.study.run.result import standing_of
from vitexp.study.spec import Study

SEARCH_NAME = "search.json"
_SHOWN = 3
_STRIDE = 100_003

Goal = Literal["maximize", "minimize"]
Resolver = Callable[[Sequence[Cell]], list[ResolvedCell]]


@dataclass
class Trial:
    """A point that was asked for, in the sampler's own numbers by parameter name, and what became of it."""

    point: dict[str, Any]
    state: Literal["running", "finished", "failed"] = "running"
    value: float | None = None
    """The metric; lower or higher is better as the goal says."""
    label: str = ""
    run_directory: str = ""


class Search:
    """Chooses the next cell from how cells ended; one runner at a time.

    Raises: ValueError when the study cannot be searched here, or another runner searches it.
    """

    def __init__(self, study: Study, root: str | Path, resolver: Resolver, seed: int = 0) -> None:
        check_search(study)
        self.study, self.resolver, self.seed = study, resolver, seed
        self.metric = study.metric["name"]
        self.goal: Goal = study.metric.get("goal", "minimize")  # as W&B has it
        self.path = Path(root) / study.name / SEARCH_NAME
        held = lock.acquire(self.path.parent, lost=lambda: None)
        if held is None:
            raise ValueError(
                f"{self.path.parent} is searched by {lock.owner_of(self.path.parent) or 'another process'}; one runner "
                "chooses the points of a bayes study: give it more --workers"
            )
        self.close = held.release
        try:
            self.trials = self._read()
        except ValueError:
            self.close()
            raise

    @property
    def left(self) -> int:
        """Cells that may still be chosen."""
        assert self.study.run_cap is not None
        return max(0, self.study.run_cap - len(self.trials))

    def cells(self) -> list[Cell]:
        """The cells chosen so far."""
        return [self._cell(index, trial.point) for index, trial in enumerate(self.trials)]

    def ask(self) -> tuple[ResolvedCell, bool]:
        """One more cell, and whether it is a run that was chosen before.

        Raises: ValueError when the parser refuses it.
        """
        point = suggest(self.study.parameters, self.trials, self.goal, self.seed)
        (cell,) = self.resolver([self._cell(len(self.trials), point)])
        trial = Trial(point, label=cell.label, run_directory=cell.run_directory)
        twins = self._trials_of(cell)
        if twins:
            trial.state, trial.value = twins[0].state, twins[0].value
        self.trials.append(trial)
        self._write()
        return cell, bool(twins)

    def tell(self, cell: ResolvedCell, record: RunRecord | None) -> None:
        """How a run ended.

        Raises: ValueError when its record does not hold the metric of the sweep.
        """
        value = None
        if record is not None and record.status == "finished":
            if self.metric not in record.metrics:
                raise ValueError(
                    f"{self.study.path}: metric.name is {self.metric}, but a run measured "
                    f"{', '.join(sorted(record.metrics)) or 'nothing'}; choose by one of these"
                )
            value = record.metrics[self.metric] if math.isfinite(record.metrics[self.metric]) else None
        for trial in self._trials_of(cell):
            trial.state, trial.value = ("failed" if value is None else "finished"), value
        self._write()

    def resume(self, cells: Sequence[ResolvedCell]) -> None:
        """Takes up the cells chosen so far, which an earlier runner may have trained since it last looked."""
        for trial, cell in zip(self.trials, cells, strict=True):
            trial.label, trial.run_directory = cell.label, cell.run_directory
        for cell in cells:
            standing = standing_of(cell)
            if not standing.open:
                self.tell(cell, standing.record)

    def summary(self) -> list[str]:
        """The best points, and what their order cannot carry."""
        done = {trial.run_directory: trial for trial in self.trials if trial.value is not None}
        if not done:
            return []
        ranked = sorted(done.values(), key=lambda trial: trial.value or 0.0, reverse=self.goal == "maximize")
        repeated = len(self.trials) - len({trial.run_directory for trial in self.trials})
        again = f", {repeated} more were repeats" if repeated else ""
        return [
            f"best of {len(done)} points by {self.metric} ({self.goal}){again}; each was chosen from the results "
            "before it, so there are no intervals and no tests: to compare, put the best ones in a grid with seeds",
            *(f"  {self.metric} {trial.value:.4f}  {trial.label}" for trial in ranked[:_SHOWN]),
        ]

    def _cell(self, index: int, point: dict[str, Any]) -> Cell:
        return make_cell(index, arguments(self.study.parameters, point), self.study.factors)

    def _trials_of(self, cell: ResolvedCell) -> list[Trial]:
        return [trial for trial in self.trials if trial.run_directory == cell.run_directory]

    def _read(self) -> list[Trial]:
        if not self.path.exists():
            return []
        try:
            kept = json.loads(self.path.read_text())
            trials, known = [Trial(point=trial["point"]) for trial in kept["trials"]], kept["space"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error!r}); move it away to search anew") from error
        if known != self._space():
            raise ValueError(
                f"{self.path} belongs to a search over other parameters or another metric; give another study.name, "
                "or move that folder away"
            )
        return trials

    def _write(self) -> None:
        trials = [asdict(trial) for trial in self.trials]
        kept = {"study": self.study.name, "space": self._space(), "trials": trials}
        write_atomically(self.path, json.dumps(kept, indent=1) + "\n")

    def _space(self) -> str:
        """What the points of a search depend on, as a digest; run_cap is none of it."""
        parameters = [one for one in self.study.parameters if one.name.split(".")[0] != "study"]
        walked = [(one.name, one.distribution, dict(one.settings)) for one in parameters]
        text = json.dumps([walked, self.metric, self.goal], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_search(study: Study) -> None:
    """Raises: ValueError when a bayes sweep lacks what it needs here."""
    try:
        _check(study)
    except ValueError as error:
        raise ValueError(f"{study.path}: {error}") from error


def _check(study: Study) -> None:
    name = study.metric.get("name")
    if not isinstance(name, str):
        raise ValueError("method bayes needs metric: {name: val_acc, goal: maximize}")
    if metrics.split_of(name) == "test":
        raise ValueError(f"metric.name is {name}, a number of the test split; choose by val_acc or val_loss")
    metrics.check_goal(name, study.metric.get("goal"))
    if study.run_cap is None:
        raise ValueError("a bayes search has no end of its own; add run_cap: 20 (or another number)")
    for parameter in study.parameters:
        if not parameter.fixed:
            _distribution(parameter)
    if not study.factors:
        raise ValueError("every parameter is fixed, so there is nothing to search; give one min and max")


def suggest(parameters: Sequence[space.Parameter], trials: Sequence[Trial], goal: Goal, seed: int) -> dict[str, Any]:
    """The next point after these trials.

    Raises: ValueError when Optuna is not installed.
    """
    optuna = _optuna()
    walked = {one.name: _distribution(one) for one in parameters if not one.fixed}
    states = {"running": "RUNNING", "finished": "COMPLETE", "failed": "FAIL"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed * _STRIDE + len(trials), constant_liar=True)
        study = optuna.create_study(direction=goal, sampler=sampler)
        for trial in trials:
            state, distributions = optuna.trial.TrialState[states[trial.state]], walked if trial.point else {}
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=trial.value, params=trial.point, distributions=distributions
                )
            )
        point: dict[str, Any] = study.ask(walked).params
    return point


def arguments(parameters: Sequence[space.Parameter], point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as the nested arguments that an agent receives."""
    return space.nest(parameters, [_value(one, point.get(one.name)) for one in parameters])


def _value(parameter: space.Parameter, number: Any) -> Any:
    if parameter.fixed:
        return parameter.row.inverse(parameter.settings, 0.0)
    if parameter.distribution == "categorical":
        return parameter.settings["values"][number]
    return parameter.rounded(number)


def _distribution(parameter: space.Parameter) -> Any:
    distributions = _optuna().distributions
    name, settings, span = parameter.distribution, parameter.settings, parameter.row.span
    if name == "categorical":
        return distributions.CategoricalDistribution(tuple(range(len(settings["values"]))))
    if name == "int_uniform":
        return distributions.IntDistribution(settings["min"], settings["max"])
    if span is None:
        known = ", ".join(name for name, row in space.DISTRIBUTIONS.items() if row.span or row.values)
        raise ValueError(f"parameter {parameter.name} is {name}, which method bayes does not know; use {known}")
    low, high, log = span(settings)
    return distributions.FloatDistribution(low, high, log=log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError('method bayes needs Optuna: pip install "vitexp[bayes]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
