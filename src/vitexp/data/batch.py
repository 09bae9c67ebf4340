"""Batches by address: a step of an epoch is asked for by its number, and answered the same by any process."""

import signal
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitexp.data.mixing import Mix, Recipe, recipe
from vitexp.data.order import EVALUATION, EpochOrder, part, steps
from vitexp.data.reader import Reader
from vitexp.data.shards.index import ShardIndex

T = TypeVar("T")


class LostWorker(RuntimeError):
    """A worker process ended, or hung, before its work was done."""

    exit_status = 1


class _Child:
    """Stands before torch's handler for the end of a child process, which raises wherever the run happens to be: here
    it raises only while a worker is waited for.
    """

    waiting = False

    def __init__(self, torchs: Any) -> None:
        self._torchs = torchs

    def __call__(self, number: int, frame: Any) -> None:
        if _Child.waiting:
            self._torchs(number, frame)

    @staticmethod
    def next(answers: Iterator[T]) -> T:
        """Raises: RuntimeError for a worker that has been killed, now or before."""
        _Child.waiting = True
        try:
            torch._C._error_if_any_worker_fails()
            return next(answers)
        finally:
            _Child.waiting = False


def received(loader: "DataLoader[T | ValueError]") -> Iterator[T]:
    """What the workers send. Raises: what they found wrong, and LostWorker where one is gone."""
    answers = iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    if getattr(handler, "__module__", "").startswith("torch."):
        signal.signal(signal.SIGCHLD, _Child(handler))
    while True:
        try:
            answer = _Child.next(answers)
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


def stop(loader: "DataLoader[Any]") -> None:
    """Ends the workers by name. Left to the collector of cycles, which may close their queues first, they wait in vain
    for a message, and the collector 5 seconds for each of them.
    """
    workers: Any = loader._iterator
    loader._iterator = None
    if workers is not None:
        workers._shutdown_workers()


_TIMEOUT_SECONDS = 600


class Batch(NamedTuple):
    """One rank's part of a global batch, as a named tuple: `images, labels = batch[:2]`.

    Lightning cannot tell the number of images from it without a warning: `self.log(..., batch_size=len(labels))`.
    """

    images: Tensor
    """uint8 (B, 3, H, W) from the loader; float in [-1, 1] after the transfer to the device."""
    labels: Tensor
    """int64 (B,)."""
    samples: Tensor
    """int64 (B,): the numbers of the samples in their split."""
    total: int
    """Images in the global batch, over all ranks."""
    recipe: Recipe | None = None
    """How the images are mixed: the loss is `share` times that of `labels`, the rest times that of their partners."""


class Place(NamedTuple):
    """The address of a step."""

    epoch: int
    step: int


class Batches(Dataset[Batch]):
    """Every step of every epoch for one rank; in evaluation, all rows once in their order."""

    def __init__(
        self,
        index: ShardIndex,
        reader: Reader,
        order: EpochOrder,
        batch: int,
        rank: int,
        ranks: int,
        mix: Mix = "none",
    ) -> None:
        self._index, self._reader, self._order = index, reader, order
        self._batch, self._rank, self._ranks, self._mix = batch, rank, ranks, mix
        self._announced: tuple[int, int] | None = None

    def __len__(self) -> int:
        return steps(len(self._order), self._batch)

    def __getitem__(self, place: Place) -> Batch:
        epoch, step = place
        start = step * self._batch
        stop = min(start + self._batch, len(self._order))
        mine = part(start, stop, self._rank, self._ranks, 1 if self._mix == "none" else 2)
        self._announce(epoch, start)
        samples = self._order.samples(epoch, *mine)
        pixels = self._reader.read(samples, epoch)
        labels = self._index.labels[samples]
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(labels).long(),
            torch.from_numpy(samples).long(),
            stop - start,
            self._recipe(samples, pixels.shape, epoch),
        )

    def _recipe(self, samples: np.ndarray, shape: tuple[int, ...], epoch: int) -> Recipe | None:
        if self._mix == "none" or epoch == EVALUATION:
            return None
        return recipe(self._mix, samples, shape[1], shape[2], self._order.seed, epoch)

    def _announce(self, epoch: int, place: int) -> None:
        """Tells the reader, once a window, which shards it will be asked for."""
        window = self._order.window_of(place)
        if (epoch, window) != self._announced:
            self._announced = epoch, window
            self._reader.prepare(self._order.shards(epoch, window), self._order.shards(epoch, window + 1))


class BatchLoader:
    """Hands out batches in order, from here or from worker processes.

    Not a torch DataLoader, so that Lightning leaves it as it is. Where an iteration begins is asked when its first
    batch is: Lightning makes iterators before it has restored a checkpoint, and does not skip what an interrupted
    epoch has already used.
    """

    def __init__(
        self, batches: Batches, workers: int, position: Callable[[], tuple[int, int]] | None = None, pin: bool = False
    ) -> None:
        self._batches, self._position = batches, position
        self._places = _Places(len(batches))
        self._loader = _worker_loader(batches, self._places, workers, pin) if workers else None
        if self._loader is not None:
            weakref.finalize(self, stop, self._loader)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        self._places.begin(*(self._position() if self._position else (EVALUATION, 0)))
        if self._loader is None:
            yield from map(self._batches.__getitem__, self._places)
        else:
            yield from received(self._loader)

    def close(self) -> None:
        """Ends the worker processes; another iteration would start new ones."""
        if self._loader is not None:
            stop(self._loader)


class TrainLoader(BatchLoader):
    """The training batches, which Lightning knows it can resume in the middle of an epoch.

    The place itself is Lightning's own count of batches; nothing is saved here, and so nothing can disagree with it.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: see the class."""


class _Answers(Dataset[Batch | ValueError]):
    """Batches from a worker, or the error that prevents them, without the worker's traceback."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, place: Place) -> Batch | ValueError:
        try:
            return self._batches[place]
        except ValueError as error:
            return error.with_traceback(None)
        except (OSError, MemoryError) as error:  # torch would send its traceback as text
            where = f"{path}: " if (path := getattr(error, "filename", None)) else ""
            what = getattr(error, "strerror", None) or str(error) or "no memory is left"
            return ValueError(
                f"a data worker could not read images: {where}{what}; see to it, then run the command again"
            )


class _Places:
    """The sampler: the addresses from a place to the end of its epoch."""

    def __init__(self, count: int) -> None:
        self._count, self._epoch, self._step = count, 0, 0

    def begin(self, epoch: int, step: int) -> None:
        self._epoch, self._step = epoch, step

    def __len__(self) -> int:
        return self._count - self._step

    def __iter__(self) -> Iterator[Place]:
        return (Place(self._epoch, step) for step in range(self._step, self._count))


def _worker_loader(batches: Batches, places: _Places, workers: int, pin: bool) -> DataLoader[Batch | ValueError]:
    return DataLoader(
        _Answers(batches),
        batch_size=None,
        sampler=places,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        persistent_workers=True,
        timeout=_TIMEOUT_SECONDS,
        generator=torch.Generator(),  # so that starting workers draws nothing from the run's own randomness
    )


def _as_it_is(batch: Any) -> Any:
    return batch
