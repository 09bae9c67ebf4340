"""The search space of a sweep: its parameters, and the points that a grid or a random search takes from it.

Points and their order are those of W&B's own engine (sweeps 0.3.0): names sorted, the last one varying fastest; a
random point spends one uniform number on every parameter, constants included. So a sweep that moves from here to W&B
or back goes on with the same cells.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

MOST_CELLS = 100_000
_MOST_REPEATS = 10_000

Settings = Mapping[str, Any]


class Distribution(NamedTuple):
    """A distribution that W&B knows: what it takes, and its inverse distribution function, from a uniform number."""

    settings: Mapping[str, type]
    inverse: Callable[[Settings, float], Any]
    span: Callable[[Settings], tuple[float, float, bool]] | None = None
    """Where a continuous one lies: from, to, and whether it is even in the logarithm."""


def _part(u: float, count: int) -> int:
    """Which of `count` equal parts of the unit interval holds `u`; a border belongs to the part below it."""
    return max(0, math.ceil(u * count) - 1)


def _weighted(s: Settings, u: float) -> Any:
    totals = itertools.accumulate(s["probabilities"])
    return s["values"][next((index for index, total in enumerate(totals) if u < total), 0)]


_INTERVAL = {"min": float, "max": float}
_BELL = {"mu": float, "sigma": float}
DISTRIBUTIONS = {
    "constant": Distribution({"value": object}, lambda s, u: s["value"]),
    "categorical": Distribution({"values": list}, lambda s, u: s["values"][_part(u, len(s["values"]))]),
    "categorical_w_probabilities": Distribution({"values": list, "probabilities": list}, _weighted),
    "int_uniform": Distribution({"min": int, "max": int}, lambda s, u: s["min"] + _part(u, s["max"] - s["min"] + 1)),
    "uniform": Distribution(
        _INTERVAL, lambda s, u: s["min"] + u * (s["max"] - s["min"]), lambda s: (s["min"], s["max"], False)
    ),
    "log_uniform": Distribution(
        _INTERVAL,
        lambda s, u: math.exp(s["min"] + u * (s["max"] - s["min"])),
        lambda s: (math.exp(s["min"]), math.exp(s["max"]), True),
    ),
    "log_uniform_values": Distribution(
        _INTERVAL, lambda s, u: s["min"] * (s["max"] / s["min"]) ** u, lambda s: (s["min"], s["max"], True)
    ),
    "inv_log_uniform": Distribution(
        _INTERVAL,
        lambda s, u: math.exp(-(s["min"] + (1 - u) * (s["max"] - s["min"]))),
        lambda s: (math.exp(-s["max"]), math.exp(-s["min"]), True),
    ),
    "normal": Distribution(_BELL, lambda s, u: s["mu"] + s["sigma"] * float(special.ndtri(u))),
    "log_normal": Distribution(_BELL, lambda s, u: math.exp(s["mu"] + s["sigma"] * special.ndtri(u))),
    "beta": Distribution({"a": float, "b": float}, lambda s, u: float(special.betaincinv(s["a"], s["b"], u))),
}
DISTRIBUTIONS["inv_log_uniform_values"] = DISTRIBUTIONS["log_uniform_values"]
for _name in ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta"):
    _row = DISTRIBUTIONS[_name]
    DISTRIBUTIONS[f"q_{_name}"] = _row._replace(settings={**_row.settings, "q": float})
_DEFAULTS: Settings = {"mu": 0.0, "sigma": 1.0, "a": 1, "b": 1, "q": 1.0}


@dataclass(frozen=True)
class Parameter:
    """One parameter: the keys that lead to it through nested `parameters:` blocks, its distribution, its settings."""

    path: tuple[str, ...]
    distribution: str
    settings: Settings

    @property
    def name(self) -> str:
        """Its dotted name on the command line."""
        return ".".join(self.path)

    @property
    def fixed(self) -> bool:
        """Whether it can take one value only."""
        return self.distribution == "constant" or len(self.settings.get("values", "..")) == 1

    def value(self, u: float) -> Any:
        """The value at a uniform number."""
        return self.rounded(DISTRIBUTIONS[self.distribution].inverse(self.settings, u))

    def rounded(self, number: Any) -> Any:
        """A number as a multiple of `q`, where the distribution has one."""
        q = self.settings.get("q")
        return number if q is None else round(number / q) * q

    def choices(self) -> list[Any]:
        """The values that a grid takes. Raises: ValueError for a distribution that has no list of them."""
        s = self.settings
        match self.distribution:
            case "constant":
                return [s["value"]]
            case "categorical":
                return list(s["values"])
            case "int_uniform":
                return list(range(s["min"], s["max"] + 1))
            case "q_uniform":
                return list(np.arange(s["min"], s["max"], s["q"]).tolist())
        what = f"parameter {self.name} is {self.distribution}, which a grid cannot walk"
        raise ValueError(f"{what}; give `values:` without probabilities, or use method: random")


def read_parameters(block: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[Parameter]:
    """The parameters of a sweep in the order of their sorted names, level by level."""
    found: list[Parameter] = []
    for key in sorted(block):
        here, entry = (*path, key), block[key]
        if not isinstance(entry, Mapping) or not isinstance(entry.get("parameters", {}), Mapping):
            raise ValueError(f"parameter {'.'.join(here)} is {entry!r}; write `value:` or `values:` under its name")
        if set(entry) == {"parameters"}:
            found += read_parameters(entry["parameters"], here)
            continue
        given = {key: value for key, value in entry.items() if key != "distribution"}
        try:
            found.append(_parameter(here, entry.get("distribution", _implied(given)), given))
        except ValueError as error:
            raise ValueError(f"parameter {'.'.join(here)} {error}") from None
    return found


def grid(parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Every combination, as the nested arguments that an agent receives."""
    choices = [parameter.choices() for parameter in parameters]
    if (count := math.prod(map(len, choices))) > MOST_CELLS:
        raise ValueError(f"the grid has {count:,} cells, more than {MOST_CELLS:,}; take values out")
    return (nest(parameters, point) for point in itertools.product(*choices))


def sample(parameters: Sequence[Parameter], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` different random points; the same seed gives the same ones. A point that comes again is passed over."""
    source, seen, repeats = random.Random(seed), set[str](), 0
    while len(seen) < count:
        point = [parameter.value(source.random()) for parameter in parameters]
        if (text := json.dumps(point, sort_keys=True)) not in seen:
            seen.add(text)
            repeats = 0
            yield nest(parameters, point)
        elif (repeats := repeats + 1) > _MOST_REPEATS:
            why = f"run_cap is {count}, but {repeats:,} draws in a row found no point beyond the first {len(seen)}"
            raise ValueError(f"{why}; lower run_cap to {len(seen)}, or widen the parameters")


def nest(parameters: Sequence[Parameter], point: Sequence[Any]) -> dict[str, Any]:
    """Values in the order of their parameters, as nested arguments."""
    nested: dict[str, Any] = {}
    for parameter, value in zip(parameters, point, strict=True):
        block = nested
        for key in parameter.path[:-1]:
            block = block.setdefault(key, {})
        block[parameter.path[-1]] = value
    return nested


def _implied(given: Settings) -> str:
    """The distribution that W&B reads from the settings alone."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    return "int_uniform" if all(_is(given.get(bound), int) for bound in ("min", "max")) else "uniform"


def _parameter(path: tuple[str, ...], distribution: Any, given: Settings) -> Parameter:
    """Raises: ValueError saying what is wrong with it, after its name."""
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        raise ValueError(f"has distribution {distribution!r}; it is one of {', '.join(DISTRIBUTIONS)}")
    wanted = DISTRIBUTIONS[distribution].settings
    settings = {key: _DEFAULTS[key] for key in wanted if key in _DEFAULTS} | dict(given)
    if settings.keys() != wanted.keys():
        raise ValueError(f"({distribution}) gives {sorted(given)}; it takes {sorted(wanted)}")
    for key, kind in wanted.items():
        if not _is(settings[key], kind):
            words = {int: "a whole number", float: "a number", list: "a list"}[kind]
            raise ValueError(f"has {key}: {settings[key]!r}; this must be {words}")
        if key in ("q", "sigma", "a", "b") and not settings[key] > 0:
            raise ValueError(f"has {key}: {settings[key]}; give a number above 0")
    if "values" in wanted:
        _check_values(settings["values"], settings.get("probabilities"))
    if "min" in wanted:
        _check_bounds(distribution, settings["min"], settings["max"])
    return Parameter(path, distribution, settings)


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_values(values: list[Any], probabilities: list[Any] | None) -> None:
    if not values:
        raise ValueError("has an empty list of values; give at least one")
    whole = [int(one) if isinstance(one, float) and one.is_integer() else one for one in values]
    texts = [json.dumps(one, sort_keys=True) for one in whole]
    if twice := [value for value, text in zip(values, texts, strict=True) if texts.count(text) > 1]:
        raise ValueError(f"lists {twice[0]} twice; take one out (in a random search, probabilities give weight)")
    if probabilities is None:
        return
    numbers = len(probabilities) == len(values) and all(_is(one, float) and one >= 0 for one in probabilities)
    if not numbers or not math.isclose(sum(probabilities), 1.0, rel_tol=1e-5):
        raise ValueError(f"has probabilities {probabilities}; give one per value, together 1")


def _check_bounds(distribution: str, low: float, high: float) -> None:
    kind = distribution.removeprefix("q_").removeprefix("inv_")
    if not low < high:
        raise ValueError(f"has min {low}, not below max {high}; swap or widen them")
    if kind == "log_uniform_values" and low <= 0:
        raise ValueError(f"({distribution}) has min {low}; a logarithm needs one above 0")
    if kind == "log_uniform" and low > 0 and high <= 1:
        sign = -1 if distribution.startswith("inv_") else 1
        first, last = sorted(math.exp(sign * bound) for bound in (low, high))
        meant = f"exponents of e: {low} and {high} mean values between {first:.4g} and {last:.4g}"
        raise ValueError(
            f"is {distribution}, whose bounds are {meant}; for values between {low} and {high} write "
            f"{distribution}_values"
        )
