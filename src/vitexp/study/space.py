"""The search space of a sweep: its parameters, and the points that a grid or a random search takes from it.

Points and their order are those of W&B's own engine (sweeps 0.3.0): names sorted, the last one varying fastest; a
random point spends one uniform number on every parameter, constants included. So a sweep that moves from here to W&B
or back goes on with the same cells.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_CELLS = 100_000
_MOST_REPEATS = 10_000
_DISCRETE = ("constant", "categorical", "int_uniform", "q_uniform")


@dataclass(frozen=True)
class Parameter:
    """One parameter: the keys that lead to it through nested `parameters:` blocks, its distribution, its settings."""

    path: tuple[str, ...]
    distribution: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its dotted name on the command line."""
        return ".".join(self.path)

    @property
    def fixed(self) -> bool:
        """Whether it can take one value only."""
        return self.distribution == "constant" or len(self.settings.get("values", "..")) == 1


def read_parameters(block: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[Parameter]:
    """The parameters of a sweep in the order of their sorted names, level by level.

    Raises: ValueError naming the parameter.
    """
    found: list[Parameter] = []
    for key in sorted(block):
        here, entry = (*path, key), block[key]
        if not isinstance(entry, Mapping) or not isinstance(entry.get("parameters", {}), Mapping):
            raise ValueError(f"parameter {'.'.join(here)} is {entry!r}; write `value:` or `values:` under its name")
        if set(entry) == {"parameters"}:
            found += read_parameters(entry["parameters"], here)
        else:
            found.append(_read_parameter(here, entry))
    return found


def grid(parameters: list[Parameter]) -> Iterator[dict[str, Any]]:
    """Every combination, as the nested arguments that an agent receives.

    Raises: ValueError for a distribution that has no list of values.
    """
    for parameter in parameters:
        if parameter.distribution not in _DISCRETE:
            raise ValueError(
                f"parameter {parameter.name} is {parameter.distribution}, which a grid cannot walk; give `values:` "
                "without probabilities, or use method: random"
            )
    choices = [_choices(parameter) for parameter in parameters]
    if math.prod(map(len, choices)) > MOST_CELLS:
        raise ValueError(
            f"the grid has {math.prod(map(len, choices)):,} cells, more than {MOST_CELLS:,}; take values out"
        )
    return (nest(parameters, point) for point in itertools.product(*choices))


def sample(parameters: list[Parameter], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` different random points; the same seed gives the same ones. A point that comes again is passed over.

    Raises: ValueError when there are fewer points.
    """
    source, seen, repeats = random.Random(seed), set[str](), 0
    while len(seen) < count:
        point = [_quantile(parameter, source.random()) for parameter in parameters]
        if (text := json.dumps(point, sort_keys=True)) not in seen:
            seen.add(text)
            repeats = 0
            yield nest(parameters, point)
        elif (repeats := repeats + 1) > _MOST_REPEATS:
            raise ValueError(
                f"run_cap is {count}, but {repeats:,} draws in a row found no point beyond the first {len(seen)}; "
                f"lower run_cap to {len(seen)}, or widen the parameters"
            )


_INTERVAL: dict[str, type] = {"min": float, "max": float}
_BELL: dict[str, type] = {"mu": float, "sigma": float}
_SETTINGS: dict[str, dict[str, type]] = {
    "constant": {"value": object},
    "categorical": {"values": list},
    "categorical_w_probabilities": {"values": list, "probabilities": list},
    "int_uniform": {"min": int, "max": int},
    "uniform": _INTERVAL,
    "log_uniform": _INTERVAL,
    "log_uniform_values": _INTERVAL,
    "inv_log_uniform": _INTERVAL,
    "inv_log_uniform_values": _INTERVAL,
    "normal": _BELL,
    "log_normal": _BELL,
    "beta": {"a": float, "b": float},
}
_QUANTISED = ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta")
_SETTINGS |= {f"q_{name}": _SETTINGS[name] | {"q": float} for name in _QUANTISED}
_DEFAULTS: dict[str, Any] = {"mu": 0.0, "sigma": 1.0, "a": 1, "b": 1, "q": 1.0}


def _read_parameter(path: tuple[str, ...], entry: Mapping[str, Any]) -> Parameter:
    given = {key: value for key, value in entry.items() if key != "distribution"}
    distribution = entry.get("distribution", _implied(given))
    name = ".".join(path)
    if not isinstance(distribution, str) or distribution not in _SETTINGS:
        raise ValueError(f"parameter {name} has distribution {distribution!r}; it is one of {', '.join(_SETTINGS)}")
    wanted = _SETTINGS[distribution]
    settings = {key: _DEFAULTS[key] for key in wanted if key in _DEFAULTS} | given
    if settings.keys() != wanted.keys():
        raise ValueError(f"parameter {name} ({distribution}) gives {sorted(given)}; it takes {sorted(wanted)}")
    for key, kind in wanted.items():
        if not _is(settings[key], kind):
            raise ValueError(f"parameter {name} has {key}: {settings[key]!r}; this must be {_KIND_WORDS[kind]}")
    _check_settings(name, distribution, settings)
    return Parameter(path, distribution, settings)


def _implied(given: Mapping[str, Any]) -> str:
    """The distribution that W&B reads from the settings alone."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    return "int_uniform" if all(_is(given.get(bound), int) for bound in ("min", "max")) else "uniform"


_KIND_WORDS = {int: "a whole number", float: "a number", list: "a list"}


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_settings(name: str, distribution: str, settings: Mapping[str, Any]) -> None:
    if "values" in settings:
        _check_values(name, settings["values"], settings.get("probabilities"))
    if "min" in settings:
        _check_bounds(name, distribution, settings["min"], settings["max"])
    for width in ("q", "sigma", "a", "b"):
        if width in settings and not settings[width] > 0:
            raise ValueError(f"parameter {name} has {width}: {settings[width]}; give a number above 0")


def _check_values(name: str, values: list[Any], probabilities: list[Any] | None) -> None:
    if not values:
        raise ValueError(f"parameter {name} has an empty list of values; give at least one")
    texts = [_identity(value) for value in values]
    if twice := [value for value, text in zip(values, texts, strict=True) if texts.count(text) > 1]:
        raise ValueError(
            f"parameter {name} lists {twice[0]} twice; take one out (in a random search, probabilities give weight)"
        )
    if probabilities is not None and not _is_distribution(probabilities, len(values)):
        raise ValueError(f"parameter {name} has probabilities {probabilities}; give one per value, together 1")


def _is_distribution(probabilities: list[Any], count: int) -> bool:
    numbers = all(_is(one, float) and one >= 0 for one in probabilities)
    return numbers and len(probabilities) == count and math.isclose(sum(probabilities), 1.0, rel_tol=1e-5)


def _check_bounds(name: str, distribution: str, low: float, high: float) -> None:
    kind = distribution.removeprefix("q_").removeprefix("inv_")
    if not low < high:
        raise ValueError(f"parameter {name} has min {low}, not below max {high}; swap or widen them")
    if kind == "log_uniform_values" and low <= 0:
        raise ValueError(f"parameter {name} ({distribution}) has min {low}; a logarithm needs one above 0")
    if kind == "log_uniform" and low > 0 and high <= 1:
        sign = -1 if distribution.startswith("inv_") else 1
        first, last = sorted(math.exp(sign * bound) for bound in (low, high))
        raise ValueError(
            f"parameter {name} is {distribution}, whose min and max are exponents of e: {low} and {high} mean values "
            f"between {first:.4g} and {last:.4g}; for values between {low} and {high} write {distribution}_values"
        )


def _choices(parameter: Parameter) -> list[Any]:
    """The values of a discrete parameter."""
    settings = parameter.settings
    if parameter.distribution == "constant":
        return [settings["value"]]
    if parameter.distribution == "int_uniform":
        return list(range(settings["min"], settings["max"] + 1))
    if parameter.distribution == "q_uniform":
        import numpy as np

        return np.arange(settings["min"], settings["max"], settings["q"]).tolist()
    return list(settings["values"])


def _identity(value: Any) -> str:
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(value, sort_keys=True)


def only_value(parameter: Parameter) -> Any:
    """The value of a fixed parameter."""
    return _choices(parameter)[0]


def nest(parameters: list[Parameter], point: Any) -> dict[str, Any]:
    """Values in the order of their parameters, as nested arguments."""
    nested: dict[str, Any] = {}
    for parameter, value in zip(parameters, point, strict=True):
        block = nested
        for key in parameter.path[:-1]:
            block = block.setdefault(key, {})
        block[parameter.path[-1]] = value
    return nested


# The inverse distribution functions: settings and a uniform number to a value.
_INVERSE: dict[str, Callable[[Mapping[str, Any], float], Any]] = {
    "constant": lambda s, u: s["value"],
    "categorical": lambda s, u: s["values"][_cell(u, len(s["values"]))],
    "categorical_w_probabilities": lambda s, u: s["values"][_rank(u, s["probabilities"])],
    "int_uniform": lambda s, u: s["min"] + _cell(u, s["max"] - s["min"] + 1),
    "uniform": lambda s, u: s["min"] + u * (s["max"] - s["min"]),
    "log_uniform": lambda s, u: math.exp(s["min"] + u * (s["max"] - s["min"])),
    "log_uniform_values": lambda s, u: s["min"] * (s["max"] / s["min"]) ** u,
    "inv_log_uniform": lambda s, u: math.exp(-(s["min"] + (1 - u) * (s["max"] - s["min"]))),
    "inv_log_uniform_values": lambda s, u: s["min"] * (s["max"] / s["min"]) ** u,
    "normal": lambda s, u: s["mu"] + s["sigma"] * float(_special().ndtri(u)),
    "log_normal": lambda s, u: math.exp(s["mu"] + s["sigma"] * _special().ndtri(u)),
    "beta": lambda s, u: float(_special().betaincinv(s["a"], s["b"], u)),
}


def _special() -> Any:
    """Imported late: every run reads the study's settings, few studies draw from a bell."""
    from scipy import special

    return special


def _quantile(parameter: Parameter, u: float) -> Any:
    settings = parameter.settings
    value = _INVERSE[parameter.distribution.removeprefix("q_")](settings, u)
    if not parameter.distribution.startswith("q_"):
        return value
    return round(value / settings["q"]) * settings["q"]


def _cell(u: float, count: int) -> int:
    """Which of `count` equal cells of the unit interval holds `u`; a border belongs to the cell below it."""
    return max(0, math.ceil(u * count) - 1)


def _rank(u: float, probabilities: list[float]) -> int:
    return next((i for i, total in enumerate(itertools.accumulate(probabilities)) if u < total), 0)
