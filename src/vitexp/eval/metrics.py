"""Metrics computed from the logits and labels of a split, beside accuracy and loss: one decorated function for each.

    @metric("ece", unit="share", better="lower", label="expected calibration error")
    def ece(classes: int) -> Metric: ...

The function makes a `torchmetrics.Metric`, which each rank updates with (logits, labels) of every batch; the number
stands in the record as val_ece and test_ece, and `vitexp.metrics` reads the row without running this file, so its
arguments must be plain values. A metric that keeps sums rather than lists also works where a rank had no image.
"""

from collections.abc import Callable

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before torchmetrics)
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

Factory = Callable[[int], Metric]
_FACTORIES: dict[str, Factory] = {}


def metric(name: str, *, unit: str, better: str | None, label: str) -> Callable[[Factory], Factory]:
    """Registers a function from the number of classes to a metric of (logits, labels)."""

    def register(factory: Factory) -> Factory:
        _FACTORIES[name] = factory
        return factory

    return register


def mean() -> MeanMetric:
    """A mean that nobody waits for: to look for NaN would be a wait each batch, and to drop it would hide it."""
    return MeanMetric(nan_strategy="disable")


def of_logits(classes: int) -> nn.ModuleDict:
    """A fresh metric for each row, by name."""
    return nn.ModuleDict({name: factory(classes) for name, factory in _FACTORIES.items()})


def update(readings: nn.ModuleDict, logits: Tensor, labels: Tensor) -> None:
    """Adds a batch. Shapes: logits (B, classes) in fp32, labels (B,)."""
    for name in _FACTORIES:
        readings[name].update(logits, labels)  # type: ignore[operator]
