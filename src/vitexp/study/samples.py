"""An arm in one metric, as the statistics take it: its value by seed, and what its runs answered to each image.

The answers are the bits that lie beside a record. A run whose bits are absent or damaged still counts with its value;
the interval is then over seeds alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitexp import stats
from vitexp.bits import answers_file
from vitexp.record import RunRecord
from vitexp.study.arm import Arm, clause, name, spelling

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
        found = [read_answers(member.runs[seed], metric) for member in members]
        if any(one is None for one in found):
            return {}, ()
        held[seed] = tuple(one[0] for one in found if one)
        for known, one in zip(orders, found, strict=True):
            known.update([one[1]] if one else [])
    if any(len(known) != 1 for known in orders):  # the runs were measured on other images
        return {}, ()
    return held, tuple(next(iter(known)) for known in orders)


def read_answers(run: RunRecord, metric: str) -> tuple[np.ndarray, str] | None:
    """The share of right answers to each image (over the draws of a few-shot probe), shape (N), and which images.

    None where the record has none, or they are not those that its number is the mean of.
    """
    try:
        return _sound_answers(run, metric)
    except ValueError:
        return None


def _sound_answers(run: RunRecord, metric: str) -> tuple[np.ndarray, str] | None:
    """The same; None only where the record never had any. Raises: ValueError saying what is wrong with them."""
    entries = list(_entries(run, metric))
    if not entries or run.directory is None:
        return None
    orders = {entry.get("order") for _, entry in entries}
    if not all(isinstance(order, str) and order for order in orders):
        raise ValueError(f"the answers of {metric} do not say which images they are about")
    bits = [_bits(run, key) for key, _ in entries]
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
        for seed, run in arm.trained.items():
            try:
                for metric in metrics:
                    if seed in arm.values(metric):
                        _sound_answers(run, metric)
            except ValueError as error:
                found.append(f"{name(arm)} seed {seed}: {error}")
    return clause("intervals over seeds alone, because answers to single images are unsound", found, 2, "; ")


def _entries(run: RunRecord, metric: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, entry in run.answers.items():
        if key == metric or key.startswith(f"{metric}/draw-"):
            yield key, entry


def _bits(run: RunRecord, name: str) -> np.ndarray:
    """One bool per image. Raises: ValueError when the file is absent or not what was written with the record."""
    content, count = answers_file(str(run.directory), run, name)
    return np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=count).astype(bool)
