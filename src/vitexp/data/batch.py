"""Batches by address: a step of an epoch is asked for by its number, and answered the same by any process."""

import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitexp.data.augmentation import PLAIN, Augmentation, Mix
from vitexp.data.mixing import Recipe, recipe
from vitexp.data.order import EVALUATION, EpochOrder, part, steps
from vitexp.data.reader import Reader
from vitexp.data.shards.index import ShardIndex
from vitexp.lightning_private import count_stepped_batch

T = TypeVar("T")
Place = tuple[int, int]  # epoch and step
_TIMEOUT_SECONDS = 600
_TIMES = 40  # above the numbers of samples, of which there are fewer than 2^40
_MOST_WORKERS = 8  # of a rank by default: they decode 10,000 photographs a second


class Batch(NamedTuple):
    """One rank's part of a global batch, as a named tuple: `images, labels = batch[:2]`.

    Lightning cannot tell the number of images from it without a warning: `self.log(..., batch_size=len(labels))`.
    """

    images: Tensor
    """uint8 (B, 3, H, W) from the loader; float in [-1, 1] after the transfer to the device."""
    labels: Tensor
    """int64 (B,)."""
    samples: Tensor
    """int64 (B,): the numbers of the samples in their split; always on the host."""
    total: int
    """Images in the global batch, over all ranks."""
    recipe: Recipe | None = None
    """How the images are mixed: the loss is `share` times that of `labels`, the rest times that of their partners."""


@dataclass(eq=False)
class Batches(Dataset[Batch]):
    """Every step of every epoch for one rank; in evaluation, all rows once in their order."""

    index: ShardIndex
    reader: Reader
    order: EpochOrder
    batch: int
    rank: int
    ranks: int
    mix: Mix = "none"
    how: Augmentation = PLAIN
    _announced: tuple[int, int] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return steps(len(self.order), self.batch)

    def __getitem__(self, place: Place) -> Batch:
        epoch, step = place
        start = step * self.batch
        stop = min(start + self.batch, len(self.order))
        mine = part(start, stop, self.rank, self.ranks, 1 if self.mix == "none" else 2)
        self._announce(epoch, start)
        samples, drawn_for = self._samples(epoch, start, stop, mine)
        pixels = self.reader.read(samples, epoch, drawn_for)
        height, width = pixels.shape[1:3]
        mixes = self.mix != "none" and epoch != EVALUATION
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(self.index.labels[samples]).long(),
            torch.from_numpy(samples).long(),
            stop - start,
            recipe(self.mix, drawn_for, height, width, self.order.seed, epoch, self.how) if mixes else None,
        )

    def _samples(self, epoch: int, start: int, stop: int, mine: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """This rank's samples in a step, and whose random numbers they get: others each time that an image comes."""
        if self.how.repeats == 1 or epoch == EVALUATION:
            samples = self.order.samples(epoch, *mine)
            return samples, samples
        samples, times = self.order.repeated(epoch, start, stop, self.how.repeats)
        part = slice(mine[0] - start, mine[1] - start)
        return samples[part], samples[part] + (times[part] << _TIMES)

    def _announce(self, epoch: int, start: int) -> None:
        """Tells the reader, once a window, which shards it will be asked for."""
        if epoch != EVALUATION:
            epoch, start = self.order.group(epoch, start, self.how.repeats)
        window = self.order.window_of(start)
        if (epoch, window) != self._announced:
            self._announced = epoch, window
            self.reader.prepare(self.order.shards(epoch, window), self.order.shards(epoch, window + 1))


class BatchLoader:
    """Hands out batches in order, from here or from worker processes.

    Not a torch DataLoader, so that Lightning leaves it as it is. Where an iteration begins is asked when its first
    batch is: Lightning makes iterators before it has restored a checkpoint, and does not skip what an interrupted
    epoch has already used.
    """

    def __init__(self, batches: Batches, workers: int, position: Callable[[], Place] | None = None) -> None:
        self._batches, self._position, self.workers = batches, position, workers
        self._places: list[Place] = []  # the workers' sampler, filled anew for each iteration
        self._loader: DataLoader[Batch | ValueError] | None = None
        if workers:
            self._loader = DataLoader(
                _Answers(batches),
                batch_size=None,
                sampler=self._places,
                num_workers=workers,
                pin_memory=torch.cuda.is_available(),
                persistent_workers=True,
                timeout=_TIMEOUT_SECONDS,
                generator=torch.Generator(),  # so that starting workers draws nothing from the run's own randomness
            )
            weakref.finalize(self, stop, self._loader)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self._position() if self._position else (EVALUATION, 0)
        places = [(epoch, step) for step in range(first, len(self))]
        if self._loader is None:
            yield from map(self._batches.__getitem__, places)
        else:
            self._places[:] = places
            yield from received(self._loader)

    def close(self) -> None:
        """Ends the worker processes; another iteration would start new ones."""
        if self._loader is not None:
            stop(self._loader)

    def state_dict(self) -> dict[str, Any]:
        """Nothing, by which Lightning knows that an epoch can be resumed; the place is its own count of batches."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


def default_workers(cached: bool, device: str, ranks: int) -> int:
    """Worker processes of each of a machine's `ranks` that train on a kind of device, where nobody asked for a number.

    A cached batch costs less than its way from a worker, and training on the CPU has threads on every core. Elsewhere
    than on Linux a worker would run the user's script again.
    """
    if cached or device == "cpu" or sys.platform != "linux":
        return 0
    return min(max(len(os.sched_getaffinity(0)) // ranks - 1, 0), _MOST_WORKERS)


@dataclass(eq=False)
class _Answers(Dataset[Batch | ValueError]):
    """Batches from a worker, or the error that prevents them, without the worker's traceback."""

    batches: Batches

    def __getitem__(self, place: Place) -> Batch | ValueError:
        try:
            return self.batches[place]
        except ValueError as error:
            return error.with_traceback(None)
        except (OSError, MemoryError) as error:  # torch would send its traceback as text
            where = f"{path}: " if (path := getattr(error, "filename", None)) else ""
            what = getattr(error, "strerror", None) or str(error) or "no memory is left"
            return ValueError(
                f"a data worker could not read images: {where}{what}; see to it, then run the command again"
            )


class LostWorker(RuntimeError):
    """A worker process ended, or hung, before its work was done."""

    exit_status = 1


def received(loader: "DataLoader[T | ValueError]") -> Iterator[T]:
    """What the workers send. Raises: what they found wrong, and LostWorker where one is gone."""
    answers = iter(loader)
    handler: Any = signal.getsignal(signal.SIGCHLD)
    if getattr(handler, "__module__", "").startswith("torch."):
        signal.signal(signal.SIGCHLD, lambda *event: handler(*event) if _waiting else None)
    while True:
        try:
            answer = _next(answers)
        except StopIteration:
            return
        except (OSError, EOFError, RuntimeError) as error:
            if str(error).startswith("Caught "):  # raised in a worker, by a fault of the program
                raise
            stop(loader)
            raise LostWorker(
                f"a data worker ended before its work was done ({' '.join(str(error).split())}), as when the memory is "
                "full: free some or set data.workers lower, then go on with --ckpt_path last"
            ) from error
        if isinstance(answer, ValueError):
            raise answer
        yield answer


_waiting = False
"""Whether a worker is waited for. torch's handler of SIGCHLD, which raises anywhere, is let through only then."""


def _next(answers: Iterator[T]) -> T:
    """Raises: RuntimeError for a worker that has been killed, now or before."""
    global _waiting
    _waiting = True
    try:
        torch._C._error_if_any_worker_fails()
        return next(answers)
    finally:
        _waiting = False


def stop(loader: "DataLoader[Any]") -> None:
    """Ends the workers. The collector of cycles may close their queues first, and then waits 5 seconds for each."""
    workers: Any = loader._iterator
    loader._iterator = None
    if workers is not None:
        workers._shutdown_workers()


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
