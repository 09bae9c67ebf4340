"""Which numbers a cell will measure, by its resolved config, and whether the study asks for others."""

from collections.abc import Sequence

from vitexp.record import flatten
from vitexp.study.plan import PlannedCell
from vitexp.study.spec import Study

_READINGS = {"classify": ("acc", "loss"), "masked_pixels": ("loss",)}
"""What is read over a split, by objective; the other objectives predict colours."""


def check_metrics(study: Study, planned: Sequence[PlannedCell]) -> None:
    """Raises: ValueError for a metric that the study reports or chooses by and that a cell will not measure."""
    asked = {name: "study.metrics" for name in study.config.metrics}
    if study.config.tune:
        asked |= {study.config.select: "study.select"}
    if study.method == "bayes":
        asked |= {study.metric["name"]: "metric.name"}
    for cell in planned:
        measured = measured_by(cell)
        for name, place in asked.items():
            if measured and name not in measured:
                raise ValueError(
                    f"{study.path}: {place} names {name}, which cell {cell.label!r} will not measure; it measures "
                    f"{', '.join(measured)}"
                )


def measured_by(cell: PlannedCell) -> list[str]:
    """The metrics that a run of the cell will have; none where its config does not say what it learns."""
    config = flatten(cell.config)
    objective = config.get("model.objective")
    if objective is None:
        return []
    readings = _READINGS.get(objective, ("colour_acc", "loss"))
    test = cell.images.get("test") != 0
    found = _of_split(config, "val", readings) if cell.images.get("val") != 0 else []
    found += _of_split(config, "test", readings) if test and config.get("run.test", True) else []
    return found + [f"fewshot_{shots}" for shots in config.get("run.shots") or [] if test]


def _of_split(config: dict[str, object], split: str, readings: Sequence[str]) -> list[str]:
    """A limited evaluation is recorded under another name, because it is not the number of the split."""
    limit = config.get(f"trainer.limit_{split}_batches")
    limited = "" if limit is None or (isinstance(limit, float) and limit == 1.0) else "limited_"
    return [] if limit == 0 else [f"{limited}{split}_{reading}" for reading in readings]
