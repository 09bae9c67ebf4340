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
from vitexp.eval.fewshot import PENALTY, Draws, accuracy_by_penalty, best_penalties, drawn_answers, share
from vitexp.record import write_atomically
from vitexp.tools.network import Opened, open_chosen
from vitexp.train.answers import read_shots


class Score(NamedTuple):
    """The accuracy on one data set with a number of images per class: its mean over draws, and each of them."""

    data: str
    shots: int
    penalty: float
    draws: tuple[float, ...]
    images: int
    """Training images of a draw: fewer than shots times classes where --fewer took what a class has."""
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


Features = tuple[ShardData, Draws, tuple[Tensor, Tensor, Tensor, Tensor]]
"""What `read_shots` gives of a data set."""


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
    seeds: Sequence[int | None] = range(chosen.seeds or 3) if drawn else [None]
    found = [_features(opened, data, chosen, seeds) for data in sets]
    scores = list(_drawn(found, chosen.shots) if drawn else _first(found, chosen.shots, chosen.fewer))
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
    if counts[few] < shots and not chosen.fewer:
        held = f"class {data.class_names[few]} has {counts[few]} training images, and {shots} shots were asked for"
        raise ValueError(f"{data.name}: {held}; give fewer --shots, or --fewer to take what a class has")
    return data


def _features(opened: Opened, data: ShardData, chosen: Any, seeds: Sequence[int | None]) -> Features:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked: dict[str, Any] = {"shots": chosen.shots, "seeds": seeds, "fewer": chosen.fewer, "middle": opened.image_size}
    return data, *read_shots(opened.network.to(device), data, device, **asked)


def _drawn(found: Sequence[Features], shots: Sequence[int]) -> Iterator[Score]:
    """The images of each class drawn at random, one draw per seed; the penalty is fixed."""
    for data, drawn, tensors in found:
        answers = drawn_answers(drawn, *tensors, classes=data.classes)
        for count in shots:
            by_seed = [share(right) for (shots_, _), right in answers.items() if shots_ == count]
            yield _score(data, drawn, count, PENALTY, by_seed)


def _first(found: Sequence[Features], shots: Sequence[int], fewer: bool) -> Iterator[Score]:
    """The first images of each class; per number of shots the penalty that ranks best over the data sets."""
    asked: dict[str, Any] = {"shots": shots, "fewer": fewer}
    by = {str(data.name): accuracy_by_penalty(*each, classes=data.classes, **asked) for data, _, each in found}
    penalties = best_penalties(by)
    for data, drawn, _ in found:
        for count in shots:
            yield _score(data, drawn, count, penalties[count], [by[str(data.name)][count, penalties[count]]])


def _score(data: ShardData, drawn: Draws, shots: int, penalty: float, draws: Sequence[float]) -> Score:
    over, images = stats.interval(draws), next(len(rows) for (count, _), rows in drawn.items() if count == shots)
    return Score(str(data.name), shots, penalty, tuple(draws), images, over.mean, over.low, over.high)


def _show(opened: Opened, found: Sequence[Features], scores: Sequence[Score], drawn: bool) -> None:
    pixels, width = opened.image_size, found[0][2][0].shape[1]
    print(f"{opened.name}: {pixels} x {pixels} pixels, {width} features")
    for data, *_ in found:
        images = f"{data.train_count:,} training and {data.test_count:,} test images"
        print(f"\n{data.name}: {images}, {data.classes} classes; few-shot test accuracy, %")
        head = "    mean ± 95 %      n   each draw" if drawn else "accuracy   penalty, chosen on these test images"
        print(f"shots {head}")
        here = [score for score in scores if score.data == data.name]
        print(*(score.line(drawn) for score in here), sep="\n")
        for score in here:
            if score.images < score.shots * data.classes:
                told = f"{score.shots} shots are {score.images} images, not {score.shots * data.classes}"
                print(f"note: {told}: a class with fewer images gave all it has")
    if not drawn:
        print("\nnote: the penalty is the one that ranks best on the test images of these data sets, as the older code")
        print("chose it; over few data sets that flatters")


def _as_json(opened: Opened, found: Sequence[Features], scores: Sequence[Score], chosen: Any) -> str:
    written = {
        "network": opened.name,
        "image_size": opened.image_size,
        "features": found[0][2][0].shape[1],
        "protocol": chosen.protocol,
        "view": chosen.view,
        "data": {str(data.name): data.describe() for data, *_ in found},
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
