"""A study whose cells are chosen one by one from the results so far, and the file from which it goes on.

The file holds points only; how each ended is read from its record.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vitexp import metrics
from vitexp.record import RunRecord, write_atomically
from vitexp.study import space
from vitexp.study.cells import Cell, make_cell
from vitexp.study.plan import PlannedCell
from vitexp.study.run import lock
from vitexp.study.run.result import standing_of
from vitexp.study.spec import Study

# Points of a `bayes` sweep: Optuna's tree-structured Parzen estimator (TPE) over the parameters of a W&B sweep file.
# A point follows from the seed, its number and the trials before it, and from nothing else. So no sampler has a state
# that a killed runner could lose, and running trials count as bad ones (the constant liar) that parallel workers
# avoid.

Goal = Literal["maximize", "minimize"]
_STRIDE = 100_003


@dataclass
class Trial:
    """A point that was asked for, in the sampler's own numbers by parameter name, and what became of it."""

    point: dict[str, Any]
    state: Literal["running", "finished", "failed"] = "running"
    value: float | None = None
    """The metric; lower or higher is better as the goal says."""
    label: str = ""
    run_directory: str = ""


def check(parameters: Sequence[space.Parameter]) -> None:
    """Raises: ValueError naming a parameter that the sampler cannot walk."""
    for parameter in parameters:
        if not parameter.fixed:
            _distribution(parameter)


def suggest(parameters: Sequence[space.Parameter], trials: Sequence[Trial], goal: Goal, seed: int) -> dict[str, Any]:
    """The next point after these trials.

    Raises: ValueError when Optuna is not installed.
    """
    optuna = _optuna()
    walked = {p.name: _distribution(p) for p in parameters if not p.fixed}
    states = {"running": "RUNNING", "finished": "COMPLETE", "failed": "FAIL"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed * _STRIDE + len(trials), constant_liar=True)
        study = optuna.create_study(direction=goal, sampler=sampler)
        for trial in trials:
            state = optuna.trial.TrialState[states[trial.state]]
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=trial.value, params=trial.point, distributions=walked if trial.point else {}
                )
            )
        point: dict[str, Any] = study.ask(walked).params
    return point


def arguments(parameters: Sequence[space.Parameter], point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as the nested arguments that an agent receives."""
    values = [space.only_value(p) if p.fixed else _value(p, point[p.name]) for p in parameters]
    return space.nest(list(parameters), values)


def _value(parameter: space.Parameter, number: Any) -> Any:
    settings = parameter.settings
    if parameter.distribution == "categorical":
        return settings["values"][number]
    if parameter.distribution.startswith("q_"):
        return round(number / settings["q"]) * settings["q"]
    return number


# Where a continuous parameter lies, and whether by its logarithm: settings to low, high, log.
_SPANS: dict[str, Callable[[Mapping[str, Any]], tuple[float, float, bool]]] = {
    "uniform": lambda s: (s["min"], s["max"], False),
    "log_uniform": lambda s: (math.exp(s["min"]), math.exp(s["max"]), True),
    "log_uniform_values": lambda s: (s["min"], s["max"], True),
    "inv_log_uniform": lambda s: (math.exp(-s["max"]), math.exp(-s["min"]), True),
    "inv_log_uniform_values": lambda s: (s["min"], s["max"], True),
}


def _distribution(parameter: space.Parameter) -> Any:
    distributions = _optuna().distributions
    name, settings = parameter.distribution, parameter.settings
    if name == "categorical":
        return distributions.CategoricalDistribution(tuple(range(len(settings["values"]))))
    if name == "int_uniform":
        return distributions.IntDistribution(settings["min"], settings["max"])
    span = _SPANS.get(name.removeprefix("q_"))
    if span is None:
        known = ", ".join(("constant", "categorical", "int_uniform", *_SPANS))
        raise ValueError(
            f"parameter {parameter.name} is {name}, which method bayes does not know; use {known}, or q_..."
        )
    low, high, log = span(settings)
    return distributions.FloatDistribution(low, high, log=log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError('method bayes needs Optuna: pip install "vitexp[bayes]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


Planner = Callable[[Sequence[Cell]], list[PlannedCell]]

SEARCH_NAME = "search.json"
_SHOWN = 3


class Search:
    """Chooses the next cell from how cells ended; one runner at a time. `planner` plans cells.

    Raises: ValueError when the study cannot be searched here, or another runner searches it.
    """

    def __init__(self, study: Study, root: str | Path, planner: Planner, seed: int = 0) -> None:
        check_search(study)
        self.study, self.planner, self.seed = study, planner, seed
        self.path = Path(root) / study.name / SEARCH_NAME
        self.lock = lock.acquire(self.path.parent)
        if self.lock is None:
            raise ValueError(
                f"{self.path.parent} is searched by {lock.owner_of(self.path.parent) or 'another process'}; one runner "
                "chooses the points of a bayes study: give it more --workers"
            )
        lock.keep(self.lock, lambda: None)
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

    def ask(self) -> tuple[PlannedCell, bool]:
        """One more cell, and whether it is a run that was chosen before.

        Raises: ValueError when the parser refuses it.
        """
        point = suggest(self.study.parameters, self.trials, goal_of(self.study), self.seed)
        (planned,) = self.planner([self._cell(len(self.trials), point)])
        twin = next((trial for trial in self.trials if trial.run_directory == planned.run_directory), None)
        trial = Trial(point, label=planned.label, run_directory=planned.run_directory)
        self.trials.append(replace(trial, state=twin.state, value=twin.value) if twin else trial)
        self._write()
        return planned, twin is not None

    def tell(self, planned: PlannedCell, record: RunRecord | None) -> None:
        """How a run ended.

        Raises: ValueError when its record does not hold the metric of the sweep.
        """
        value = self._value(record) if record is not None and record.status == "finished" else None
        for trial in self.trials:
            if trial.run_directory == planned.run_directory:
                trial.state, trial.value = ("failed" if value is None else "finished"), value
        self._write()

    def resume(self, planned: Sequence[PlannedCell]) -> None:
        """Takes up the cells chosen so far, which an earlier runner may have trained since it last looked."""
        for trial, cell in zip(self.trials, planned, strict=True):
            trial.label, trial.run_directory = cell.label, cell.run_directory
        for cell in planned:
            standing = standing_of(cell)
            if standing.state not in ("absent", "cut off"):
                self.tell(cell, standing.record)

    def close(self) -> None:
        """Lets another runner search."""
        if self.lock is not None:
            lock.release(self.lock)
            self.lock = None

    def summary(self) -> list[str]:
        """The best points, and what their order cannot carry."""
        done = {t.run_directory: t for t in self.trials if t.value is not None}
        if not done:
            return []
        goal, metric = goal_of(self.study), self.study.metric["name"]
        ranked = sorted(done.values(), key=lambda trial: trial.value or 0.0, reverse=goal == "maximize")
        repeated = len(self.trials) - len({trial.run_directory for trial in self.trials})
        again = f", {repeated} more were repeats" if repeated else ""
        return [
            f"best of {len(done)} points by {metric} ({goal}){again}; each was chosen from the results before it, so "
            "there are no intervals and no tests: to compare, put the best ones in a grid with seeds",
            *(f"  {metric} {trial.value:.4f}  {trial.label}" for trial in ranked[:_SHOWN]),
        ]

    def _cell(self, index: int, point: dict[str, Any]) -> Cell:
        return make_cell(index, arguments(self.study.parameters, point), self.study.factors)

    def _value(self, record: RunRecord) -> float | None:
        metric = self.study.metric["name"]
        if metric not in record.metrics:
            raise ValueError(
                f"{self.study.path}: metric.name is {metric}, but a run measured "
                f"{', '.join(sorted(record.metrics)) or 'nothing'}; choose by one of these"
            )
        return record.metrics[metric] if math.isfinite(record.metrics[metric]) else None

    def _read(self) -> list[Trial]:
        if not self.path.exists():
            return []
        try:
            kept = json.loads(self.path.read_text())
            trials = [Trial(point=trial["point"]) for trial in kept["trials"]]
            known = kept["space"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error!r}); move it away to search anew") from error
        if known != _space(self.study):
            raise ValueError(
                f"{self.path} belongs to a search over other parameters or another metric; give another study.name, "
                "or move that folder away"
            )
        return trials

    def _write(self) -> None:
        kept = {"study": self.study.name, "space": _space(self.study), "trials": [asdict(t) for t in self.trials]}
        write_atomically(self.path, json.dumps(kept, indent=1) + "\n")


def check_search(study: Study) -> None:
    """Raises: ValueError when a bayes sweep lacks what it needs here."""
    name = study.metric.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{study.path}: method bayes needs metric: {{name: val_acc, goal: maximize}}")
    if metrics.split_of(name) == "test":
        raise ValueError(
            f"{study.path}: metric.name is {name}, a number of the test split; choose by val_acc or val_loss"
        )
    if goal_of(study) not in ("maximize", "minimize"):
        raise ValueError(f"{study.path}: metric.goal is {goal_of(study)!r}; write maximize or minimize")
    try:
        metrics.check_goal(name, study.metric.get("goal"))
    except ValueError as error:
        raise ValueError(f"{study.path}: {error}") from error
    if study.run_cap is None:
        raise ValueError(f"{study.path}: a bayes search has no end of its own; add run_cap: 20 (or another number)")
    try:
        check(study.parameters)
    except ValueError as error:
        raise ValueError(f"{study.path}: {error}") from error
    if not study.factors:
        raise ValueError(f"{study.path}: every parameter is fixed, so there is nothing to search; give one min and max")


def goal_of(study: Study) -> Goal:
    """W&B minimises unless asked otherwise."""
    goal: Goal = study.metric.get("goal", "minimize")
    return goal


def _space(study: Study) -> str:
    """What the points of a search depend on, as a digest; run_cap is none of it."""
    walked = [(p.name, p.distribution, dict(p.settings)) for p in study.parameters if p.name.split(".")[0] != "study"]
    text = json.dumps([walked, study.metric["name"], goal_of(study)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
