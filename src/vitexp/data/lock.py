"""One process at a time for work on files that several would otherwise do at once, such as the ranks of one run."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_SECONDS = 3600.0


@contextmanager
def alone(path: Path, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Holds the lock file `path`. A process that dies lets go of it, so only one that works or hangs is waited for.

    Raises: ValueError after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    with open(path, "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"another process has held {path} for {wait_seconds:.0f} seconds; wait for it or stop it"
                    ) from None
                time.sleep(0.05)
        yield
