"""Known results: numbers that others have published, each with the study that should give it again.

Such a study is a sweep file like any other, `sweeps/known_NAME.yaml`, with `study.expected`: the metric, its source,
what our protocol does otherwise, and the published value of each arm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexp import starter
from vitexp.checked import checked
from vitexp.stats import Interval
from vitexp.study.arm import name, spelling
from vitexp.study.spec import Study, read_study
from vitexp.study.table import Table

PREFIX = "known_"
AGREES, UNKNOWN = "agrees", "no interval"
_COST = "# Cost: "


@dataclass(frozen=True)
class Expected:
    """What is published: `arms` are factors, each with its value."""

    metric: str
    source: str
    differs: str
    arms: tuple[tuple[Mapping[str, Any], float], ...]


@dataclass(frozen=True)
class Obtained:
    """One published value beside ours."""

    arm: str
    expected: float
    interval: Interval | None
    """Of the level, over seeds and images like those tested; None where no run has finished"""

    @property
    def verdict(self) -> str:
        """Whether the interval holds the published value, which comes without an interval of its own."""
        one = self.interval
        if one is None or one.low is None or one.high is None:
            return UNKNOWN
        return AGREES if one.low <= self.expected <= one.high else "above" if one.low > self.expected else "below"


def files() -> dict[str, Path]:
    """The studies of known results by name."""
    found = starter.path("sweeps", "").glob(f"{PREFIX}*.yaml")
    return {path.stem.removeprefix(PREFIX): path for path in sorted(found)}


def find(chosen: str) -> Study:
    """Raises: ValueError for a name that is none, and where the files that its runs begin with are not here."""
    if chosen not in files():
        raise ValueError(f"{chosen!r} is no known result; give one of {', '.join(files())}")
    study = read_study(files()[chosen])
    if missing := [word for word in study.command if word.endswith(".yaml") and not Path(word).is_file()]:
        raise ValueError(f"{chosen} needs {missing[0]} in this folder; `vitexp init` writes it")
    return study


def expected_of(study: Study) -> Expected:
    """Raises: ValueError where `study.expected` is not as it must be, or an arm of it is none of the study's."""
    given = study.config.expected
    try:
        metric, source, differs = [checked(given[key], str, key) for key in ("metric", "source", "differs")]
        arms = [dict(one) for one in checked(given["arms"], list[dict[str, Any]], "arms")]
        values = [checked(arm.pop("value"), float, "value") for arm in arms]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{study.path}: study.expected needs metric, source, differs and arms, each with its value ({error})"
        ) from error
    return Expected(metric, source, differs, tuple(zip(arms, values, strict=True)))


def obtained(table: Table) -> list[Obtained]:
    """Every published value beside the runs of a study. Raises: ValueError where it is of no arm, or of several."""
    study, expected = table.study, expected_of(table.study)
    found = []
    for factors, value in expected.arms:
        held = [one for one in table.entries[expected.metric] if _is_of(one.arm.factors, factors)]
        if len(held) != 1:
            raise ValueError(f"{study.path}: study.expected names {spelling(factors)}, which is {len(held)} arms")
        found.append(Obtained(name(held[0].arm), value, held[0].interval))
    return found


def _is_of(factors: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(spelling(factors.get(key)) == spelling(value) for key, value in wanted.items())


def listed() -> Iterator[tuple[str, str, str, str]]:
    """Name, what is expected, its source and the cost of each known result."""
    for short, path in files().items():
        study = read_study(path)
        expected = expected_of(study)
        values = [100 * value for _, value in expected.arms]
        span = f"{values[0]:g}" if len(values) == 1 else f"{min(values):g} to {max(values):g} ({len(values)} arms)"
        yield short, f"{span} %", expected.source, _cost(path)


def _cost(path: Path) -> str:
    lines = (line for line in path.read_text("utf-8").splitlines() if line.startswith(_COST))
    return next(lines, _COST).removeprefix(_COST)
