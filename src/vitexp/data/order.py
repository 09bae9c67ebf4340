"""Which image goes to which step of which epoch on which rank: arithmetic on (seed, epoch), without state or I/O.

An epoch is a permutation of the chosen images. The shards are put in a new order; the images in the order of their
shards are cut into windows of nearly equal size, at most `WINDOW_IMAGES`; and each window is shuffled completely. A
set that fits into one window is therefore shuffled completely, and of a larger one only a window's shards are being
read at any time. Nothing longer than a window is held in memory, whatever the number of images.

Step s of an epoch is the slice [s * batch, (s + 1) * batch) of this order; each rank takes its part.
"""

from bisect import bisect_right
from typing import Any

import numpy as np

from vitexp.data.keyed import draw, key
from vitexp.lightning_private import count_stepped_batch

EVALUATION = -1
"""The epoch of evaluation: the rows in their own order."""

WINDOW_IMAGES = 1 << 16
_SHARDS, _WINDOW = 1, 2


class EpochOrder:
    """The order of `rows` (ascending sample numbers) in every epoch."""

    def __init__(self, rows: np.ndarray, shard_starts: np.ndarray, seed: int, window: int = WINDOW_IMAGES) -> None:
        self.rows, self.seed = rows, seed
        self.windows = max(1, -(-len(rows) // window))
        self._bounds = [len(rows) * i // self.windows for i in range(self.windows + 1)]
        bounds = np.searchsorted(rows, shard_starts)
        self._used = np.flatnonzero(np.diff(bounds))  # the shards that hold any of the rows
        self._first, self._counts = bounds[:-1][self._used], np.diff(bounds)[self._used]
        self._last_order: tuple[int | None, np.ndarray, np.ndarray] = None, rows, rows
        self._last_window: tuple[tuple[int, int] | None, np.ndarray] = None, rows

    def __len__(self) -> int:
        return len(self.rows)

    def samples(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The sample numbers at the places [start, stop) of an epoch."""
        assert 0 <= start <= stop <= len(self)
        if epoch == EVALUATION:
            return self.rows[start:stop]
        parts = [np.empty(0, np.int64)]
        for window in range(self.window_of(start), self.window_of(stop - 1) + 1):
            first = self._bounds[window]
            parts.append(self._window(epoch, window)[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def shards(self, epoch: int, window: int) -> np.ndarray:
        """Numbers of the shards that a window lies in, in the order of their reading; none beyond the last window."""
        if window >= self.windows:
            return np.empty(0, np.int64)
        order, ends = self._shard_order(epoch)
        low, high = np.searchsorted(ends, [self._bounds[window], self._bounds[window + 1] - 1], side="right")
        return self._used[order[low : high + 1]]

    def window_of(self, place: int) -> int:
        """The window that a place lies in."""
        return bisect_right(self._bounds, place) - 1

    def _window(self, epoch: int, window: int) -> np.ndarray:
        """The sample numbers of one window in their new order; the last one is remembered."""
        if self._last_window[0] != (epoch, window):
            first, end = self._bounds[window : window + 2]
            ranks = draw(key(self.seed, epoch, _WINDOW, window), np.arange(end - first))
            places = first + np.argsort(ranks, kind="stable")
            order, ends = self._shard_order(epoch)
            at = np.searchsorted(ends, places, side="right")
            shard = order[at]
            samples = self.rows[self._first[shard] + places - (ends[at] - self._counts[shard])]
            self._last_window = (epoch, window), samples
        return self._last_window[1]

    def _shard_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the shards in use, and the place behind the last image of each; the last one is remembered."""
        if self._last_order[0] != epoch:
            order = np.arange(len(self._used))
            if epoch != EVALUATION:
                order = np.argsort(draw(key(self.seed, epoch, _SHARDS), self._used), kind="stable")
            self._last_order = epoch, order, np.cumsum(self._counts[order])
        return self._last_order[1:]


def steps(images: int, batch: int) -> int:
    """Steps of an epoch: the last one may be smaller."""
    return -(-images // batch)


def part(start: int, stop: int, rank: int, ranks: int, grain: int = 1) -> tuple[int, int]:
    """The part of the places [start, stop) for one rank, in whole groups of `grain` neighbours counted from `start`:
    the same for all to within a group, and empty for some of many ranks.
    """
    groups = -(-(stop - start) // grain)
    low, high = (start + groups * r // ranks * grain for r in (rank, rank + 1))
    return min(low, stop), min(high, stop)


# Where a run goes on: Lightning's counts of epochs and batches, made consistent after a checkpoint is loaded.


def settle(fit_loop: Any) -> None:
    """Closes the epoch that a checkpoint was written at the end of, and opens the one it was written in.

    Lightning takes a checkpoint of an epoch's last batch for one of the middle, and then never counts the beginning of
    the next epoch: a second resume starts that epoch again. What it counts without fail are the batches of the epoch,
    the last of which is marked, and the epochs that have begun before the first resume.

    Args:
        fit_loop: The trainer's, after its state was restored and before it runs.
    """
    loop = fit_loop.epoch_loop
    if not loop.batch_progress.current.ready:
        return
    if loop.batch_progress.is_last_batch:
        _close(fit_loop)
    else:
        ended = fit_loop.epoch_progress.current.processed
        _count(fit_loop.epoch_progress, ended + 1, ended)


def _close(fit_loop: Any) -> None:
    epochs, loop = fit_loop.epoch_progress, fit_loop.epoch_loop
    if epochs.current.processed < epochs.current.ready:  # the loggers' step, which counts the batch after its callbacks
        count_stepped_batch(loop)
    _count(epochs, epochs.current.ready, epochs.current.ready)
    loop.batch_progress.total.completed = loop.batch_progress.total.ready
    loop.batch_progress.reset_on_run()
    loop.scheduler_progress.reset_on_run()
    loop.automatic_optimization.optim_progress.reset_on_run()
    loop.val_loop.batch_progress.total.reset()
    fit_loop.restarting = fit_loop.restarting  # worked out anew: nothing is unfinished now


def _count(epochs: Any, begun: int, ended: int) -> None:
    for count in (epochs.total, epochs.current):
        count.ready = count.started = begun
        count.processed = count.completed = ended
