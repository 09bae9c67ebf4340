"""A study whose cells are chosen one by one from the results so far, and the file from which it goes on.

The file holds points only; how each ended is read from its record. Points come from Optuna's tree-structured Parzen
estimator (TPE). A point follows from its number and the trials before it, and from nothing else. So no sampler has a
state that a killed runner could lose, and running trials count as bad ones (the constant liar) that parallel workers
avoid.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vitexp import metrics
from vitexp.record import digest, write_atomically
from vitexp.study import space
from vitexp.study.cells import Cell, make_cell
from vitexp.study.resolve import ResolvedCell
from vitexp.study.run import lock
from vitexp.study.run.result import standing_of
from vitexp.study.spec import Study

FILE_NAME = "search.json"
_SHOWN = 3


class Trial(NamedTuple):
    """A point in the sampler's own numbers by parameter name, and what became of it, in Optuna's words."""

    point: dict[str, Any]
    state: Literal["RUNNING", "COMPLETE", "FAIL"] = "RUNNING"
    value: float | None = None
    """The metric; lower or higher is better as the goal says."""


class Search:
    """Chooses the next cell from how cells ended; one runner at a time."""

    def __init__(self, study: Study, root: str | Path, resolve: Callable[[list[Cell]], list[ResolvedCell]]) -> None:
        check_search(study)
        self.study, self.resolve = study, resolve
        self.metric, self.goal = study.metric["name"], study.metric.get("goal", "minimize")  # as W&B has it
        self.path = Path(root) / study.name / FILE_NAME
        held = lock.acquire(self.path.parent, lost=lambda: None)
        if held is None:
            owner = lock.owner_of(self.path.parent) or "another process"
            why = "one runner chooses the points of a bayes study: give it more --workers"
            raise ValueError(f"{self.path.parent} is searched by {owner}; {why}")
        self.close = held.release
        self.failed: set[str] = set()
        """Run directories of cells that have failed, which not every record says."""
        try:
            self.points = self._read()
            self.cells = resolve([self._cell(index, point) for index, point in enumerate(self.points)])
        except ValueError:
            self.close()
            raise

    @property
    def left(self) -> int:
        """Cells that may still be chosen."""
        return max(0, (self.study.run_cap or 0) - len(self.points))

    def ask(self) -> ResolvedCell | None:
        """One more cell; None when the point makes a run that was chosen before."""
        trials = [self._trial(point, cell) for point, cell in zip(self.points, self.cells, strict=True)]
        point = suggest(self.study.parameters, trials, self.goal)
        (cell,) = self.resolve([self._cell(len(self.points), point)])
        repeated = cell.run_directory in {other.run_directory for other in self.cells}
        self.points.append(point)
        self.cells.append(cell)
        kept = [
            {"point": point, "label": cell.label, "run_directory": cell.run_directory}
            for point, cell in zip(self.points, self.cells, strict=True)
        ]
        content = {"study": self.study.name, "space": self._space(), "trials": kept}
        write_atomically(self.path, json.dumps(content, indent=1) + "\n")
        return None if repeated else cell

    def summary(self) -> list[str]:
        """The best points, and what their order cannot carry."""
        cells = {cell.run_directory: cell for cell in self.cells}.values()
        measured = [(value, cell.label) for cell in cells if (value := self._trial({}, cell).value) is not None]
        if not measured:
            return []
        ranked = sorted(measured, key=lambda pair: pair[0], reverse=self.goal == "maximize")
        repeated = len(self.cells) - len(cells)
        again = f", {repeated} more were repeats" if repeated else ""
        return [
            f"best of {len(measured)} points by {self.metric} ({self.goal}){again}; each was chosen from the results "
            "before it, so there are no intervals and no tests: to compare, put the best ones in a grid with seeds",
            *(f"  {self.metric} {value:.4f}  {label}" for value, label in ranked[:_SHOWN]),
        ]

    def _cell(self, index: int, point: Mapping[str, Any]) -> Cell:
        return make_cell(index, arguments(self.study.parameters, point), self.study.factors)

    def _trial(self, point: dict[str, Any], cell: ResolvedCell) -> Trial:
        standing = standing_of(cell)
        if standing.state != "finished" or standing.record is None:
            ended = not standing.open or cell.run_directory in self.failed
            return Trial(point, "FAIL" if ended else "RUNNING")
        if (value := standing.record.metrics.get(self.metric)) is None:
            measured = ", ".join(sorted(standing.record.metrics)) or "nothing"
            what = f"metric.name is {self.metric}, but a run measured {measured}"
            raise ValueError(f"{self.study.path}: {what}; choose by one of these")
        return Trial(point, "COMPLETE", value) if math.isfinite(value) else Trial(point, "FAIL")

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            kept = json.loads(self.path.read_text())
            points, known = [dict(trial["point"]) for trial in kept["trials"]], kept["space"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error!r}); move it away to search anew") from error
        if known != self._space():
            what = "belongs to a search over other parameters or another metric"
            raise ValueError(f"{self.path} {what}; give another study.name, or move that folder away")
        return points

    def _space(self) -> str:
        """What the points of a search depend on, as a digest; run_cap is none of it."""
        parameters = [one for one in self.study.parameters if one.name.split(".")[0] != "study"]
        walked = [(one.name, one.distribution, dict(one.settings)) for one in parameters]
        return digest([walked, self.metric, self.goal])[:12]


def check_search(study: Study) -> None:
    """Raises: ValueError when a bayes sweep lacks what it needs here."""
    try:
        _check(study, study.metric.get("name"))
    except ValueError as error:
        raise ValueError(f"{study.path}: {error}") from error


def _check(study: Study, name: object) -> None:
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


def suggest(parameters: Sequence[space.Parameter], trials: Sequence[Trial], goal: str) -> dict[str, Any]:
    """The next point after these trials."""
    optuna = _optuna()
    walked = {one.name: _distribution(one) for one in parameters if not one.fixed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=len(trials), constant_liar=True)
        study = optuna.create_study(direction=goal, sampler=sampler)
        for point, name, value in trials:
            state, distributions = optuna.trial.TrialState[name], walked if point else {}
            study.add_trial(
                optuna.trial.create_trial(state=state, value=value, params=point, distributions=distributions)
            )
        return dict(study.ask(walked).params)


def arguments(parameters: Sequence[space.Parameter], point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as the nested arguments that an agent receives."""
    return space.nest(parameters, [_value(one, point.get(one.name)) for one in parameters])


def _value(parameter: space.Parameter, number: Any) -> Any:
    if parameter.fixed:
        return parameter.value(0.0)
    if parameter.distribution == "categorical":
        return parameter.settings["values"][number]
    return parameter.rounded(number)


def _distribution(parameter: space.Parameter) -> Any:
    distributions = _optuna().distributions
    name, settings = parameter.distribution, parameter.settings
    if name == "categorical":
        return distributions.CategoricalDistribution(tuple(range(len(settings["values"]))))
    if name == "int_uniform":
        return distributions.IntDistribution(settings["min"], settings["max"])
    if (span := space.DISTRIBUTIONS[name].span) is None:
        known = ", ".join(
            ["constant, categorical, int_uniform", *(n for n, row in space.DISTRIBUTIONS.items() if row.span)]
        )
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
