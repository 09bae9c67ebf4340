"""An arm in one metric, as the statistics take it: its value by seed, and what its runs answered to each image.

The answers are the bits that lie beside a record. A run whose bits are absent or damaged still counts with its value;
the interval is then over seeds alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitexp import stats
from vitexp.bits import answers_file
from vitexp.record import RunRecord
from vitexp.study.arm import Arm, clause, name, spelling
from vitexp.study.comparison import answers_of, image_order

_SPREAD = ("data.", "trainer.", "study.groups")
"""Factors that change how much runs vary: data and their number, the length of training."""
_ROUNDING = 1e-6
"""How far a metric may lie from the mean of its bits: it was averaged in float32 perhaps, and one image of 100,000 is
still seen."""


def sample_of(arm: Arm, metric: str, images: bool = True) -> stats.Sample:
    """An arm in one metric; the same object each time, so that comparisons with one arm are known to share it.

    `images` says whether the answers to single images are read.
    """
    known: dict[Any, stats.Sample] = arm.samples
    if (metric, images) not in known:
        known[metric, images] = _sample(arm, metric, images)
    return known[metric, images]


def _sample(arm: Arm, metric: str, images: bool) -> stats.Sample:
    values = arm.values(metric)
    members: Sequence[Arm] = getattr(arm, "members", (arm,))  # those of a mean over data sets
    answers, orders = _answers(members, metric, list(values)) if images else ({}, ())
    kind = {key: value for key, value in arm.factors.items() if key.startswith(_SPREAD)}
    return stats.Sample(
        values=values,
        answers=answers,
        images=orders,
        pool=(metric, spelling(kind)),
        alone=bool(arm.untrained) and len(arm.untrained) == len(arm.runs),
    )


def _answers(
    members: Sequence[Arm], metric: str, seeds: Sequence[int]
) -> tuple[dict[int, tuple[np.ndarray, ...]], tuple[str, ...]]:
    """What each seed answered in each data set, and which images these are; nothing unless all is known."""
    held: dict[int, tuple[np.ndarray, ...]] = {}
    orders: list[set[str]] = [set() for _ in members]
    for seed in seeds:
        found = [_read(member, seed, metric) for member in members]
        known = [one for one in found if not isinstance(one, str)]
        if len(known) < len(found):
            return {}, ()
        held[seed] = tuple(shares for shares, _ in known)
        for order, (_, images) in zip(orders, known, strict=True):
            order.add(images)
    if any(len(order) != 1 for order in orders):  # the runs were measured on other images
        return {}, ()
    return held, tuple(next(iter(order)) for order in orders)


def _read(arm: Arm, seed: int, metric: str) -> tuple[np.ndarray, str] | str:
    """The answers of one run, read once, or what is wrong with them: "" where there never were any."""
    key = ("answers", seed, metric)
    if key not in arm.samples:
        try:
            arm.samples[key] = read_answers(arm.runs[seed], metric) or ""
        except ValueError as error:
            arm.samples[key] = str(error)
    found: tuple[np.ndarray, str] | str = arm.samples[key]
    return found


def read_answers(run: RunRecord, metric: str) -> tuple[np.ndarray, str] | None:
    """The share of right answers to each image (over the draws of a few-shot probe), shape (N), and which images.

    None where the record never had any. Raises: ValueError where they are not those that its number is the mean of.
    """
    entries = answers_of(run, metric)
    if not entries or run.directory is None:
        return None
    orders = {entry.get("order") for entry in entries.values()}
    if not all(isinstance(order, str) and order for order in orders):
        raise ValueError(f"the answers of {metric} do not say which images they are about")
    read = [answers_file(run.directory, run, key) for key in entries]  # the file is what was written with the record
    bits = [np.unpackbits(np.frombuffer(held, np.uint8), count=count).astype(bool) for held, count in read]
    if len(orders) != 1 or len({len(one) for one in bits}) != 1 or not len(bits[0]):
        raise ValueError(f"the answers of {metric} are about different images")
    # one byte an image where each has one answer
    shares, value = np.mean(bits, axis=0) if bits[1:] else bits[0], run.metrics[metric]
    if not abs(float(shares.mean()) - value) < _ROUNDING:
        raise ValueError(f"{metric} is {value:.6g}, and the mean of its answers {shares.mean():.6g}")
    return shares, str(orders.pop())


def unsound_answers(arms: Sequence[Arm], metrics: Sequence[str]) -> list[str]:
    """One sentence on the runs whose answers to single images are not what their records say; none for old records."""
    found = []
    for arm in arms:
        for seed in arm.trained:
            whys = (_read(arm, seed, metric) for metric in metrics if seed in arm.values(metric))
            if why := next((why for why in whys if why and isinstance(why, str)), ""):
                found.append(f"{name(arm)} seed {seed}: {why}")
    several = [
        f"{name(arm)} in {metric}"
        for arm in arms
        for metric in metrics
        if len({image_order(arm.runs[seed], metric) for seed in arm.values(metric)}) > 1
    ]
    return [
        *clause("intervals over seeds alone, because answers to single images are unsound", found, 2, "; "),
        *clause("a mean over seeds that were measured on different images", several, 2, "; "),
    ]
