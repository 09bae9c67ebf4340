"""The rows of `vitexp bench`: what was measured of a candidate, the goals it is held against, and the printed table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEAD = "| network | precision | step of | ms | spread | share of floor | times timm | times vit-pytorch | goals |"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """At least `least` times the speed of the floor or of a peer."""

    of: str
    least: float
    reached: float
    met: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate: its median step, the spread of the middle half of them, and what it is compared with."""

    size: str
    precision: str
    name: str
    milliseconds: float
    spread: float
    steps: int
    floor_share: float | None
    times_timm: float | None
    times_vit_pytorch: float | None
    goals: Sequence[Goal] = ()


def goals_of(name: str, precision: str, least: float, reached: dict[str, float | None]) -> list[Goal]:
    """The goals of a candidate, by what it reached beside the floor, timm and vit-pytorch (None: not measured).

    Only our networks have any. `least` is of the floor, or of timm where there is none. No peer has relative positions,
    and of timm bf16 nothing is asked.
    """
    if not name.startswith("vitexp"):
        return []
    asked = {"floor": least}
    if reached["floor"] is None:
        asked = {"timm": least}
    elif "relative" not in name:
        asked |= {"timm": 1.0, "vit-pytorch": 1.0} if precision == "fp32" else {"vit-pytorch": 1.0}
    pairs = [(of, share, value) for of, share in asked.items() if (value := reached[of]) is not None]
    return [Goal(of=of, least=share, reached=value, met=value >= share) for of, share, value in pairs]


def line(row: Row) -> str:
    """A line of the table, as Markdown."""
    goals = ", ".join(f"{goal.of} {goal.least:.2f} {'met' if goal.met else 'missed'}" for goal in row.goals)
    compared = (row.floor_share, row.times_timm, row.times_vit_pytorch)
    cells = " | ".join("" if value is None else f"{value:.2f}" for value in compared)
    return (
        f"| {row.size} | {row.precision} | {row.name} | {row.milliseconds:.2f} | {row.spread:.0%} | {cells} | {goals} |"
    )


def spread(times: Sequence[float]) -> float:
    """How far apart the quartiles lie, as a share of the median."""
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle
