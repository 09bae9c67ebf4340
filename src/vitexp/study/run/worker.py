"""What happens inside the processes of a study: one that parses cells, and one for each cell that trains.

They start from a preloaded fork server, so that no cell pays for imports, and end with the runner, however it ends.
"""

import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vitexp.record import RECORD_NAME, RunRecord, read_record
from vitexp.study.run import lock

Parse = Callable[[list[str]], Mapping[str, Any]]
Train = Callable[[list[str], str], None]

LOG_NAME = "fit.log"
BUSY = 75  # the exit status of a worker that found its cell in the hands of another, or finished by it
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_ENVIRONMENT: dict[str, str] = {}
"""What the fork server is started with; there is one in a process, as Python has it."""
_SERVER_STARTS = 3
_PR_SET_PDEATHSIG = 1


def preload(modules: Sequence[str], threads: int = 1) -> None:
    """Starts the fork server: its processes have `modules` imported already, and `threads` threads each."""
    # A killed resource tracker is started again by Python itself.
    warnings.filterwarnings("ignore", message="resource_tracker: process died")
    forkserver.set_forkserver_preload(list(modules))
    _ENVIRONMENT.update(dict.fromkeys(_THREADS, str(threads)))
    _ensure_running()


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A new process of the fork server, which is itself started anew when it has been killed.

    Raises: ValueError when no fork server stays alive long enough.
    """
    for _ in range(_SERVER_STARTS):
        _ensure_running()
        process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
        with contextlib.suppress(EOFError, ConnectionError):  # killed between the two lines
            process.start()
            return process
    raise ValueError("the process that starts cells was killed again and again; is there enough memory?")


def _ensure_running() -> None:
    """Starts the fork server if there is none. Ctrl-C at a terminal must not reach it while it imports."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of the fork server that work on many calls; an error in the block, such as Ctrl-C, ends them."""
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"), end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                kill(process)
            raise


def parse_cell(parse: Parse, argv: list[str]) -> Mapping[str, Any] | str:
    """A cell as the parser resolves it, or the sentence in which it refuses it."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return parse(argv)
    except SystemExit as error:
        lines = [line.strip() for line in said.getvalue().splitlines() if line.strip()]
        return lines[-1] if lines else f"the parser ended with status {error.code}"
    except Exception as error:
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def train_cell(train: Train, argv: list[str], directory: str, fingerprint: str, environment: Mapping[str, str]) -> None:
    """Trains one cell, unless another process is at it or has done it; its output goes to a log beside its record."""
    end_with_parent()
    held = lock.acquire(directory, lost=lambda: os._exit(BUSY))
    if held is None:
        os._exit(BUSY)
    record = find_record(directory)
    if record is not None and record.status == "finished" and record.fingerprint == fingerprint:
        held.release()
        os._exit(BUSY)
    log = Path(directory) / LOG_NAME
    with log.open("wb") as file:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.dup2(file.fileno(), number)
    if held.broken:
        print(f"vitexp: {held.broken}", flush=True)
    os.environ.update(environment)
    try:
        train(argv, str(log))
    finally:
        held.release()


def find_record(directory: str | os.PathLike[str]) -> RunRecord | None:
    """The record of a run directory, if it has one."""
    return read_record(directory) if (Path(directory) / RECORD_NAME).exists() else None


def end_with_parent() -> None:
    """Ties this process to the runner; it also leaves the terminal's group, so that Ctrl-C reaches the runner alone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked in the fork server
    with contextlib.suppress(PermissionError):  # already the leader of a group
        os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    """The fork server is our parent in the system's eyes; this watches the runner itself, on any system."""
    parent: BaseProcess | None = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(os.getpgrp(), signal.SIGKILL)


def kill(process: BaseProcess) -> None:
    """Ends a worker with all that it started; it leads its own process group."""
    if process.pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it has no group yet, or is gone
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def end_gently(processes: Sequence[BaseProcess], seconds: float) -> None:
    """Ends workers with all that they started; each has some time to save a checkpoint first."""
    end = time.monotonic() + seconds
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
    finally:  # also after a second Ctrl-C
        for process in processes:
            kill(process)
        for process in processes:
            process.join(seconds)
