"""Which image goes to which step of which epoch on which rank: arithmetic on (seed, epoch), without state or I/O.

An epoch is a permutation of the chosen images. The shards are put in a new order; the images in the order of their
shards are cut into windows of nearly equal size, at most `WINDOW_IMAGES`; and each window is shuffled completely. A
set that fits into one window is therefore shuffled completely, and of a larger one only a window's shards are being
read at any time. Nothing longer than a window is held in memory, whatever the number of images.

Step s of an epoch is the slice [s * batch, (s + 1) * batch) of this order; each rank takes its part.

The random numbers belong to a key, such as (seed, epoch, purpose), and to a sample. A generator that is drawn from in
turn gives a sample other numbers whenever the batch, the worker or the rank around it changes; these are counted
instead, so that any can be computed alone, in any order, anywhere. Source: Steele, Lea, Flood, "Fast splittable
pseudorandom number generators" (2014): SplitMix64 and its gamma.
"""

from bisect import bisect_right

import numpy as np

_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_ALL = 0xFFFFFFFFFFFFFFFF
EVALUATION = -1  # the epoch of evaluation: the rows in their own order
WINDOW_IMAGES = 1 << 16
_SHARDS, _WINDOW = 1, 2


def mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the value.

    Shapes: uint64, of one dimension at least (NumPy warns of overflow in single numbers) -> the same.
    """
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FACTORS[0])
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_FACTORS[1])
    return value ^ (value >> np.uint64(31))


def key(*parts: int) -> int:
    """One number for several, in their order; other numbers, another stream."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state + np.uint64((_GAMMA + part) & _ALL))
    return int(state[0])


def draw(key: int, samples: np.ndarray) -> np.ndarray:
    """64 random bits for each sample: that number of SplitMix64's stream from `key`.

    Shapes: integers, of one dimension at least -> uint64 of the same shape.
    """
    return mix(np.uint64(key) + np.uint64(_GAMMA) * (np.asarray(samples).astype(np.uint64) + np.uint64(1)))


def draws(key: int, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` times 64 random bits for each sample. Shapes: samples (B,) -> uint64 (B, count)."""
    return draw(0, draw(key, samples)[:, None] + np.arange(count, dtype=np.uint64))


def uniforms(key: int, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each sample, by the upper 53 bits; shapes as `draws`."""
    return (draws(key, samples, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


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

    def repeated(self, epoch: int, start: int, stop: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
        """The sample numbers of a step [start, stop) where each image comes `repeats` times, and which time it is.

        As many epochs go through one order of the images together, in which each image stands as often in a row. Within
        the step its first time comes before the second, so that neighbours, which are mixed, are two images.
        """
        group, first = self.group(epoch, start, repeats)
        places = np.arange(start, stop) + epoch % repeats * len(self)
        places = places[np.argsort(places % repeats, kind="stable")]
        samples = self.samples(group, first, (stop - 1 + epoch % repeats * len(self)) // repeats + 1)
        return samples[places // repeats - first], places % repeats

    def group(self, epoch: int, start: int, repeats: int) -> tuple[int, int]:
        """The order that an epoch goes through with others where images are repeated, and where a place of it lies."""
        return epoch // repeats, (start + epoch % repeats * len(self)) // repeats

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
