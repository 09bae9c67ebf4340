"""The lock of a run directory: whoever holds it may train there. It is free again as soon as its holder dies."""

import fcntl
import os
from pathlib import Path

LOCK_NAME = ".lock"


def acquire(directory: str | os.PathLike[str]) -> int | None:
    """The open file of the lock, to be kept as long as the lock is wanted; None when another process holds it."""
    path = Path(directory) / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def release(handle: int) -> None:
    """Gives the lock back."""
    os.close(handle)


def is_held(directory: str | os.PathLike[str]) -> bool:
    """Whether some process trains in `directory` now."""
    if not (Path(directory) / LOCK_NAME).exists():
        return False
    handle = acquire(directory)
    if handle is not None:
        release(handle)
    return handle is None
