"""Points of a `bayes` sweep: Optuna's tree-structured Parzen estimator (TPE) over the parameters of a W&B sweep file.

A point follows from the seed, its number and the trials before it, and from nothing else. So no sampler has a state
that a killed runner could lose, and running trials count as bad ones (the constant liar) that parallel workers avoid.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vitexp.study import space

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
