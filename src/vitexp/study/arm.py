"""An arm of a study: one configuration with the finished run of each seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitexp.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration of a study: the studied factors, the tuned values, and the finished run of each seed.

    `tuning_runs` is how many runs the tuned values were chosen from, `grids` the values that were tried of each.
    """

    factors: Mapping[str, Any]
    tuned: Mapping[str, Any] = field(default_factory=dict)
    tuning_runs: int = 0
    grids: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    asked: tuple[int, ...]
    runs: Mapping[int, RunRecord] = field(default_factory=dict)
    unfinished: Mapping[int, str] = field(default_factory=dict)

    def values(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the finished runs that hold it as a finite number."""
        held = {seed: run.metrics.get(metric) for seed, run in sorted(self.runs.items())}
        return {seed: value for seed, value in held.items() if value is not None and abs(value) < float("inf")}


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share of images, which readers see in per cent."""
    return metric.endswith("_acc") or metric.startswith("fewshot_")


def name(arm: Arm) -> str:
    """The arm by the keys and values of the study file."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in arm.factors.items()) or "the only arm"
