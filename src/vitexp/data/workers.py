"""What worker processes send, and one sentence when one of them is gone."""

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

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
    for a word, and the collector 5 seconds for each of them.
    """
    workers: Any = loader._iterator
    loader._iterator = None
    if workers is not None:
        workers._shutdown_workers()
