"""Standard output that a reader may leave, as `| head` does: training goes on, and its record is written."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Unbreakable:
    """A text stream that ends in nothing once nobody reads it any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what is still read."""
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._leave()
        return len(text)

    def flush(self) -> None:
        """Sends what is still read."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """Standard output, for the time of a run."""
    if sys.stdout is None:
        yield
        return
    with contextlib.redirect_stdout(_Unbreakable(sys.stdout)):
        try:
            yield
        finally:
            sys.stdout.flush()
