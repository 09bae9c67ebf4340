"""The lock of a run directory: whoever holds it may train there, on any machine that sees the folder.

Two things make it. An flock, which the kernel frees when its holder dies, decides among the processes of one machine. A
holder file, made by O_EXCL, decides among machines, also where flock does not reach across the network (NFS mounted
with local_lock, and others). It names machine, boot and process, and its holder touches it every few seconds. A holder
of this boot whose flock is free is dead. One of another boot counts as alive until its file has been silent for a while
by the clock of the file server, so machines' clocks do not matter; silence from a time in the future begins now.
(The leases of filelock take over by an exchange of names, which NFS refuses.)

Needs: O_EXCL, rename and time stamps that all machines see (NFS 3 and later, Lustre, GPFS), and flock on each machine.
"""

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LOCK_NAME = ".lock"
HOLDER_NAME = ".holder"
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Owner(NamedTuple):
    """Who holds a lock."""

    boot: str
    host: str
    pid: int
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Held(NamedTuple):
    """A lock that this process holds."""

    handle: int
    path: Path
    owner: Owner
    broken: str = ""
    """Whose lock was broken for it, on another machine, and why."""

    def release(self) -> None:
        """Gives the lock back."""
        if _read(self.path) == self.owner:
            self.path.unlink()
        os.close(self.handle)

    def _beat(self, lost: Callable[[], None]) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with contextlib.suppress(OSError):
                if _read(self.path) != self.owner:
                    return lost()
                os.utime(self.path)


def acquire(directory: str | os.PathLike[str], lost: Callable[[], None] | None = None) -> Held | None:
    """The lock, to be kept as long as it is wanted; None when another process holds it.

    With `lost` the holder file is touched as long as this process lives, and `lost` is called when another machine has
    broken the lock. That happens to a process that stood still for long: stopped, or cut off from the file server.

    Raises: ValueError when the file system has no locks.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    handle = _flock(folder)
    if handle is None:
        return None
    mine = Owner(boot_id(), platform.node(), os.getpid(), uuid.uuid4().hex)
    found, broken = _look(folder, handle)
    if broken is None or not _take(folder / HOLDER_NAME, mine, found):
        os.close(handle)
        return None
    held = Held(handle, folder / HOLDER_NAME, mine, broken)
    if lost is not None:
        threading.Thread(target=held._beat, args=(lost,), daemon=True).start()
    return held


def is_held(directory: str | os.PathLike[str]) -> bool:
    """Whether some process trains in `directory` now."""
    folder = Path(directory)
    if not (folder / LOCK_NAME).exists():
        return False
    handle = _flock(folder)
    if handle is None:
        return True
    _, broken = _look(folder, handle)
    os.close(handle)
    return broken is None


def owner_of(directory: str | os.PathLike[str]) -> Owner | None:
    """Who holds the lock of `directory`, or held it last and died."""
    return _read(Path(directory) / HOLDER_NAME)


def boot_id() -> str:
    """One word for the running kernel: processes with the same one share its flocks."""
    return _BOOT.read_text().strip() if _BOOT.exists() else platform.node()


def _flock(folder: Path) -> int | None:
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            return None
        why = f"lies on a file system without file locks ({error.strerror})"
        raise ValueError(f"{folder} {why}; mount it with them, or give another --root") from error
    return handle


def _look(folder: Path, handle: int) -> tuple[Owner | None, str | None]:
    """The holder that is on file, and why its lock may be broken: "" for nobody and for a dead process of this boot.

    None where it may not. Only for whoever has the flock.
    """
    path, owner = folder / HOLDER_NAME, owner_of(folder)
    if owner is None or owner.boot == boot_id():
        return owner, ""
    os.utime(handle)  # asks the file server for its time
    try:
        silent = os.fstat(handle).st_mtime - path.stat().st_mtime
        if silent < 0:  # a copied folder, or a clock that was set back: it counts from now on
            os.utime(path)
    except FileNotFoundError:
        return None, ""
    if silent < SILENT_SECONDS:
        return owner, None
    return owner, f"took over from {owner}, which has been silent for {silent:.0f} s"


def _take(path: Path, mine: Owner, dead: Owner | None) -> bool:
    """Puts this process in place of nobody or of a dead holder, unless another machine is faster."""
    if dead is not None and not _remove(path, dead):
        return False
    try:
        with path.open("x") as file:  # O_EXCL
            json.dump(mine._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _remove(path: Path, dead: Owner) -> bool:
    """Takes a dead holder's file away; of several that try, one succeeds."""
    aside = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    was = _read(aside)
    if was != dead:  # another machine has taken the lock since we looked: put it back
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()
    return was == dead


def _read(path: Path) -> Owner | None:
    """The owner on file; one that is being written just now is a stranger."""
    try:
        with path.open() as file:
            return Owner(**json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError):
        return Owner("unknown", "an unknown machine", 0, "")
