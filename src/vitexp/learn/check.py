"""What can be known before the first step: whether all that is to be measured after the last one can be measured."""

from vitexp.data.module import ShardData
from vitexp.data.published_sizes import PublishedData
from vitexp.learn.config import RunConfig


def check_shots(run: RunConfig, data: ShardData) -> None:
    """Raises: ValueError when a class has fewer training images than the few-shot probe draws."""
    if not (run.shots and data.test_count):
        return
    if isinstance(data, PublishedData) and data.published:
        return  # a size says nothing of the single classes
    counts, most = data.class_counts("train"), max(run.shots)
    fewest = int(counts.argmin())
    if counts[fewest] < most:
        possible = [shots for shots in run.shots if shots <= counts[fewest]]
        raise ValueError(
            f"run.shots asks for {most} images of each class, but class {data.class_names[fewest]} has "
            f"{counts[fewest]} of the {data.train_count} training images; give --run.shots {possible}, or more images"
        )
