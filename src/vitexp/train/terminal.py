"""Standard output that a reader may leave, as `| head` does: training goes on, and its record is written."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.utilities.warnings import PossibleUserWarning

# Keeps Lightning from talking about itself, so that what a run prints is about the run.


def quieten() -> None:
    """Leaves out what Lightning says about itself: advice on workers, on its other products, on the seed."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter is intended.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    warnings.filterwarnings("ignore", message="The dirpath has changed from.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    for name in (
        "pytorch.utilities.rank_zero",
        "fabric.utilities.seed",
        "pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)


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
