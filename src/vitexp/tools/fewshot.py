"""`vitexp fewshot`: linear probes on the frozen features of any network, over any number of data sets."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitexp import stats
from vitexp.data.module import ShardData
from vitexp.eval.fewshot import PENALTY, accuracy_by_penalty, best_penalties, fewshot_accuracy
from vitexp.record import write_atomically
from vitexp.tools.network import Opened, open_chosen
from vitexp.train.answers import read_features


class Score(NamedTuple):
    """The accuracy on one data set with a number of images per class: its mean over draws, and each of them."""

    data: str
    shots: int
    penalty: float
    draws: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    def line(self, drawn: bool) -> str:
        """Of the table; without draws the penalty stands there instead."""
        start = f"{self.shots:>5}   {100 * self.mean:6.2f}"
        if not drawn:
            return f"{start}   {self.penalty:g}"
        spread = "" if self.high is None else f" ± {100 * (self.high - self.mean):.2f}"
        return f"{start}{spread:<9}{len(self.draws):>3}   {', '.join(f'{100 * draw:.2f}' for draw in self.draws)}"


Features = tuple[ShardData, tuple[Tensor, Tensor, Tensor, Tensor]]
"""Frozen features of a data set with their labels, of training and test. Shapes: (n, D), (n), (m, D), (m)."""


def fewshot(chosen: Any) -> int:
    """Measures, prints, and writes what was asked for."""
    drawn = chosen.protocol == "drawn"
    if not drawn and chosen.seeds is not None:
        raise ValueError("--seeds has no effect with --protocol first, which takes the first images of each class")
    if (chosen.seeds or 3) < 1 or min(chosen.shots) < 1 or chosen.batch_size < 1:
        raise ValueError("--shots, --seeds and --batch-size must each be at least 1")
    opened = open_chosen(chosen)
    sets = [_open_data(shards, opened, chosen) for shards in chosen.data]
    if len({data.name for data in sets}) < len(sets):
        raise ValueError(f"--data names one data set twice: {', '.join(str(data.name) for data in sets)}")
    found = [_features(opened, data) for data in sets]
    scores = list(_drawn(found, chosen.shots, range(chosen.seeds or 3)) if drawn else _first(found, chosen.shots))
    _show(opened, found, scores, drawn)
    for path, content in ((chosen.json, _as_json(opened, found, scores, chosen)), (chosen.csv, _as_csv(scores))):
        if path:
            write_atomically(path, content)
            print(f"Written: {path}")
    return 0


def _open_data(shards: str, opened: Opened, chosen: Any) -> ShardData:
    """The data at the network's size, refused before the features are computed, which is what takes the time."""
    if chosen.image_size is None:
        opened.check_size(shards)
    whole_then_middle = chosen.view == "resize_crop"
    data = ShardData(
        shards=shards,
        batch_size=chosen.batch_size,
        image_size=round(opened.image_size * 8 / 7) if whole_then_middle else opened.image_size,
        val_fraction=0.0,
        eval_view="resize" if whole_then_middle else chosen.view,
        workers=chosen.workers,
    )
    counts, shots = data.class_counts("train"), max(chosen.shots)
    few = int(counts.argmin())
    if counts[few] < shots:
        held = f"class {data.class_names[few]} has {counts[few]} training images"
        raise ValueError(f"{data.name}: {held}, and {shots} shots were asked for; give fewer --shots")
    return data


def _features(opened: Opened, data: ShardData) -> Features:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, size = opened.network.to(device), opened.image_size
    train = read_features(network, data, "train", device, size)
    return data, (*train, *read_features(network, data, "test", device, size))


def _drawn(found: Sequence[Features], shots: Sequence[int], seeds: Sequence[int]) -> Iterator[Score]:
    """The images of each class drawn at random, one draw per seed; the penalty is fixed."""
    for data, tensors in found:
        by = fewshot_accuracy(*tensors, shots=shots, seeds=seeds, classes=data.classes)
        for count in shots:
            yield _score(data, count, PENALTY, [by[count, seed] for seed in seeds])


def _first(found: Sequence[Features], shots: Sequence[int]) -> Iterator[Score]:
    """The first images of each class; per number of shots the penalty that ranks best over the data sets."""
    by = {str(data.name): accuracy_by_penalty(*each, shots=shots, classes=data.classes) for data, each in found}
    penalties = best_penalties(by)
    for data, _ in found:
        for count in shots:
            yield _score(data, count, penalties[count], [by[str(data.name)][count, penalties[count]]])


def _score(data: ShardData, shots: int, penalty: float, draws: Sequence[float]) -> Score:
    over = stats.interval(draws)
    return Score(str(data.name), shots, penalty, tuple(draws), over.mean, over.low, over.high)


def _show(opened: Opened, found: Sequence[Features], scores: Sequence[Score], drawn: bool) -> None:
    pixels, width = opened.image_size, found[0][1][0].shape[1]
    print(f"{opened.name}: {pixels} x {pixels} pixels, {width} features")
    for data, (_, train_y, _, test_y) in found:
        images = f"{len(train_y):,} training and {len(test_y):,} test images"
        print(f"\n{data.name}: {images}, {data.classes} classes; few-shot test accuracy, %")
        head = "    mean ± 95 %      n   each draw" if drawn else "accuracy   penalty, chosen on these test images"
        print(f"shots {head}")
        print(*(score.line(drawn) for score in scores if score.data == data.name), sep="\n")
    if not drawn:
        print("\nnote: the penalty is the one that ranks best on the test images of these data sets, as the older code")
        print("chose it; over few data sets that flatters")


def _as_json(opened: Opened, found: Sequence[Features], scores: Sequence[Score], chosen: Any) -> str:
    written = {
        "network": opened.name,
        "image_size": opened.image_size,
        "features": found[0][1][0].shape[1],
        "protocol": chosen.protocol,
        "view": chosen.view,
        "data": {str(data.name): data.describe() for data, _ in found},
        "scores": [score._asdict() for score in scores],
    }
    return json.dumps(written, indent=2) + "\n"


def _as_csv(scores: Sequence[Score]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "shots", "penalty", "draw", "accuracy"])
    for score in scores:
        writer.writerows([score.data, score.shots, score.penalty, i, draw] for i, draw in enumerate(score.draws))
    return text.getvalue()
