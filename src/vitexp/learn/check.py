"""What can be known before the first step: whether all that is to be measured after the last one can be measured."""

import re
from collections.abc import Sequence

from vitexp.data.module import ShardData
from vitexp.learn.config import RunConfig

_MEASURED = re.compile(r"(val|test)_\w+|fewshot_\d+")


def check_shots(run: RunConfig, data: ShardData) -> None:
    """Raises: ValueError when a class has fewer training images than the few-shot probe draws."""
    if not (run.shots and data.test_count):
        return
    counts, most = data.class_counts("train"), max(run.shots)
    fewest = int(counts.argmin())
    if counts[fewest] < most:
        possible = [shots for shots in run.shots if shots <= counts[fewest]]
        raise ValueError(
            f"run.shots asks for {most} images of each class, but class {data.class_names[fewest]} has "
            f"{counts[fewest]} of the {data.train_count} training images; give --run.shots {possible}, or more images"
        )


def check_metrics(asked: Sequence[str], run: RunConfig, data: ShardData, readings: Sequence[str]) -> None:
    """`readings` are what is read of a split, such as acc and loss.

    Raises: ValueError when a study reports a metric that this run does not measure.
    """
    splits = [*(["val"] if data.val_count else []), *(["test"] if run.test and data.test_count else [])]
    measured = [f"{split}_{name}" for split in splits for name in readings]
    measured += [f"fewshot_{shots}" for shots in run.shots if data.test_count]
    absent = [name for name in asked if _MEASURED.fullmatch(name) and name not in measured]
    if absent:
        raise ValueError(
            f"study.metrics names {absent[0]}, which this run would not measure; it measures {', '.join(measured)} "
            "(see run.test, run.shots, and the splits of the data set)"
        )
