"""`vitexp fewshot`: linear probes on the frozen features of any network, over any number of data sets."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitexp import stats
from vitexp.data.module import ShardData, Split
from vitexp.data.opened import open_all
from vitexp.data.shards.index import ShardIndex
from vitexp.eval.fewshot import PENALTY, accuracy_by_penalty, best_penalties, fewshot_accuracy
from vitexp.record import write_atomically
from vitexp.tools.network import Opened, open_chosen
from vitexp.train.answers import read_features

SPLITS: tuple[Split, Split] = ("train", "test")
DRAWN, FIRST = "drawn", "first"
_WHOLE_THEN_MIDDLE = "resize_crop"


@dataclass(frozen=True, kw_only=True)
class Score:
    """The accuracy on one data set with a number of images per class: its mean over draws, and each of them."""

    data: str
    shots: int
    penalty: float
    draws: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @property
    def words(self) -> str:
        """A line of the table."""
        spread = "" if self.high is None else f" ± {100 * (self.high - self.mean):.2f}"
        each = ", ".join(f"{100 * draw:.2f}" for draw in self.draws)
        return f"{self.shots:>5}   {100 * self.mean:6.2f}{spread:<9}{len(self.draws):>3}   {each}"

    @property
    def words_of_one(self) -> str:
        """The same without draws."""
        return f"{self.shots:>5}   {100 * self.mean:6.2f}   {self.penalty:g}"


@dataclass(frozen=True)
class Features:
    """Frozen features of a data set. Shapes: (n, D), (n), (m, D), (m)."""

    data: ShardData
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    @property
    def name(self) -> str:
        """The data set's."""
        return str(self.data.name)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the probes take them."""
        return self.train_x, self.train_y, self.test_x, self.test_y


def fewshot(chosen: Any) -> int:
    """Measures, prints, and writes what was asked for."""
    _check(chosen)
    opened = open_chosen(chosen)
    sets = [_open_data(shards, opened, chosen) for shards in chosen.data]
    if len({data.name for data in sets}) < len(sets):
        raise ValueError(f"--data names one data set twice: {', '.join(str(data.name) for data in sets)}")
    found = [_features(opened, data) for data in sets]
    scores = list(_drawn(found, chosen) if chosen.protocol == DRAWN else _first(found, chosen.shots))
    _show(opened, found, scores, chosen.protocol)
    for path, content in ((chosen.json, _as_json(opened, found, scores, chosen)), (chosen.csv, _as_csv(scores))):
        if path:
            write_atomically(path, content)
            print(f"Written: {path}")
    return 0


def _check(chosen: Any) -> None:
    if chosen.protocol == FIRST and chosen.seeds is not None:
        raise ValueError("--seeds has no effect with --protocol first, which takes the first images of each class")
    if (chosen.seeds or 3) < 1 or min(chosen.shots) < 1 or chosen.batch_size < 1:
        raise ValueError("--shots, --seeds and --batch-size must each be at least 1")


def _open_data(shards: str, opened: Opened, chosen: Any) -> ShardData:
    """The data at the network's size, refused before the features are computed, which is what takes the time."""
    train = open_all(shards)["train"]
    if chosen.image_size is None:
        check_size(opened, train)
    _check_counts(train, max(chosen.shots))
    return ShardData(
        shards=shards,
        batch_size=chosen.batch_size,
        image_size=round(opened.image_size * 8 / 7) if chosen.view == _WHOLE_THEN_MIDDLE else opened.image_size,
        val_fraction=0.0,
        eval_view="resize" if chosen.view == _WHOLE_THEN_MIDDLE else chosen.view,
        workers=chosen.workers,
    )


def check_size(opened: Opened, index: ShardIndex) -> None:
    """Images of one other size are resized only where --image-size says so. Raises: ValueError."""
    size, own = opened.image_size, index.image_size
    if own is not None and own != (size, size):
        raise ValueError(
            f"{opened.words} takes images of {size} x {size} and those of {index.name} are {own[0]} x {own[1]}: give "
            f"--image-size {size} to resize the images, or another size to resize the network's positions too"
        )


def _check_counts(index: ShardIndex, shots: int) -> None:
    counts = np.bincount(index.labels, minlength=index.classes)
    few = int(counts.argmin())
    if counts[few] < shots:
        raise ValueError(
            f"{index.name}: class {index.class_names[few]} has {counts[few]} training images, fewer than the {shots} "
            "shots asked for; give fewer --shots"
        )


def _features(opened: Opened, data: ShardData) -> Features:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = opened.network.to(device)
    size = opened.image_size
    train, test = (read_features(network, data, split, device, size) for split in SPLITS)
    return Features(data, *train, *test)


def _drawn(found: Sequence[Features], chosen: Any) -> Iterator[Score]:
    """The images of each class drawn at random, one draw per seed; the penalty is fixed."""
    seeds = range(chosen.seeds or 3)
    for each in found:
        by = fewshot_accuracy(*each.tensors, shots=chosen.shots, seeds=seeds, classes=each.data.classes)
        for shots in chosen.shots:
            yield _score(each.name, shots, PENALTY, [by[shots, seed] for seed in seeds])


def _first(found: Sequence[Features], shots: Sequence[int]) -> Iterator[Score]:
    """The first images of each class; per number of shots the penalty that ranks best over the data sets."""
    by = {each.name: accuracy_by_penalty(*each.tensors, shots=shots, classes=each.data.classes) for each in found}
    penalties = best_penalties(by)
    for name, accuracies in by.items():
        for count in shots:
            yield _score(name, count, penalties[count], [accuracies[count, penalties[count]]])


def _score(data: str, shots: int, penalty: float, draws: Sequence[float]) -> Score:
    over = stats.interval(draws)
    return Score(
        data=data, shots=shots, penalty=penalty, draws=tuple(draws), mean=over.mean, low=over.low, high=over.high
    )


def _show(opened: Opened, found: Sequence[Features], scores: Sequence[Score], protocol: str) -> None:
    width = found[0].train_x.shape[1]
    print(f"{opened.words}: {opened.image_size} x {opened.image_size} pixels, {width} features")
    for each in found:
        images = f"{len(each.train_y):,} training and {len(each.test_y):,} test images"
        print(f"\n{each.name}: {images}, {each.data.classes} classes; few-shot test accuracy, %")
        head = (
            "    mean ± 95 %      n   each draw"
            if protocol == DRAWN
            else "accuracy   penalty, chosen on these test images"
        )
        print(f"shots {head}")
        for score in scores:
            if score.data == each.name:
                print(score.words if protocol == DRAWN else score.words_of_one)
    if protocol == FIRST:
        print("\nnote: the penalty is the one that ranks best on the test images of these data sets, as the older code")
        print("chose it; over few data sets that flatters")


def _as_json(opened: Opened, found: Sequence[Features], scores: Sequence[Score], chosen: Any) -> str:
    written = {
        "network": opened.words,
        "image_size": opened.image_size,
        "features": found[0].train_x.shape[1],
        "protocol": chosen.protocol,
        "view": chosen.view,
        "data": {each.name: each.data.describe() for each in found},
        "scores": [asdict(score) for score in scores],
    }
    return json.dumps(written, indent=2) + "\n"


def _as_csv(scores: Sequence[Score]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "shots", "penalty", "draw", "accuracy"])
    for score in scores:
        writer.writerows([score.data, score.shots, score.penalty, i, draw] for i, draw in enumerate(score.draws))
    return text.getvalue()
