"""The processes of a study: those that parse cells, and one for each cell that trains, here or on a Ray cluster.

They start from a preloaded fork server, so that no cell pays for imports, and end with the runner, however it ends.

Both engines say how many more cells are `free` to start, `start` one, `wait` for one to end, for some seconds, and give
the exit status of each that has (-n: by signal n; LOST) by its run directory. `close` ends those that still run.
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
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vitexp.record import RECORD_NAME, RunRecord, read_record
from vitexp.study.run import lock
from vitexp.study.run.machine import available_cores, core_shares, visible_gpus

Parse = Callable[[list[str]], Mapping[str, Any]]
Train = Callable[[list[str], str], None]

LOG_NAME = "fit.log"
BUSY = 75  # the exit status of a worker that found its cell in the hands of another, or finished by it
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TORCHINDUCTOR_COMPILE_THREADS",  # with one, torch.compile starts no thread that data workers would copy
)
_ENVIRONMENT: dict[str, str] = {}
"""What the fork server is started with; there is one in a process, as Python has it."""
_SERVER_PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds between attempts: a server that was killed still counts as alive until the system has taken its memory."""
_PR_SET_PDEATHSIG = 1
LOST = 256
"""The status of a cell whose process is gone with its machine: nothing is known of it, so it may be run again."""
_NO_SERVER = 255
"""What Python says of a process whose fork server was killed, and the process with it."""
_END_SECONDS = 10.0
_OBJECT_STORE_BYTES = 80 << 20  # nothing but exit statuses travels


def preload(modules: Sequence[str], threads: int = 1) -> None:
    """Starts the fork server: its processes have `modules` imported already, and `threads` threads each."""
    # A killed resource tracker is started again by Python itself.
    warnings.filterwarnings("ignore", message="resource_tracker: process died")
    forkserver.set_forkserver_preload(list(modules))
    _ENVIRONMENT.update(dict.fromkeys(_THREADS, str(threads)))
    _ensure_running()


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A new process of the fork server, which is itself started anew when it has been killed."""
    for pause in _SERVER_PAUSES:
        time.sleep(pause)
        _ensure_running()
        process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
        with contextlib.suppress(EOFError, ConnectionError):  # killed, and not seen to be dead yet
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
    _ensure_running()
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


def train_cell(
    train: Train,
    argv: list[str],
    directory: str,
    fingerprint: str,
    environment: Mapping[str, str],
    cores: Sequence[int] = (),
) -> None:
    """Trains one cell, on these `cores` if some are given, unless another process is at it or has done it.

    Its output goes to a log beside its record.
    """
    end_with_parent()
    if cores:
        os.sched_setaffinity(0, cores)
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


class LocalEngine:
    """`workers` processes on this machine, of `threads` threads each; on GPUs, they take one each in turn.

    Each keeps to its own share of the cores, where they are enough.
    """

    def __init__(self, train: Train, workers: int | None = None, threads: int = 1) -> None:
        self.train, self.gpus = train, visible_gpus()
        count = workers or len(available_cores())
        self.slots, self.shares = list(range(count)), core_shares(count, threads)
        self.running: dict[str, tuple[BaseProcess, int]] = {}

    def free(self) -> int:
        """The slots that no cell is in."""
        return len(self.slots)

    def start(self, argv: list[str], directory: str, fingerprint: str) -> None:
        """Starts a process."""
        slot = self.slots.pop(0)
        environment = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        process = start(train_cell, self.train, argv, directory, fingerprint, environment, self.shares[slot])
        self.running[directory] = process, slot

    def wait(self, seconds: float) -> dict[str, int]:
        """Exit statuses of the processes that have ended."""
        if self.running:
            wait([process.sentinel for process, _ in self.running.values()], seconds)
        else:
            time.sleep(seconds)
        statuses = {}
        for folder, (process, slot) in list(self.running.items()):
            if not process.is_alive():
                self.slots.append(slot)
                del self.running[folder]
                statuses[folder] = process.exitcode or 0
                if process.exitcode == _NO_SERVER:
                    statuses[folder] = LOST
                    kill(process)  # with what it started
        return statuses

    def close(self) -> None:
        """Ends processes with all that they started; those that train have some time to save a checkpoint."""
        end, processes = time.monotonic() + _END_SECONDS, [process for process, _ in self.running.values()]
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(max(0.0, end - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for process in processes:
                kill(process)
            for process in processes:
                process.join(_END_SECONDS)


class RayEngine:
    """Each cell as a Ray task that takes `cpus` and `gpus`, fractions allowed, on as many nodes as there are.

    What is finished, and who may train where, is still said by records and locks in the study's folder, which all nodes
    must see. Ray's own retries stay off, because a lost cell is to go on from its checkpoint, and not at all while its
    old process may be alive.
    """

    def __init__(
        self,
        train: Train,
        *,
        modules: Sequence[str],
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        threads: int = 1,
        workers: int | None = None,
    ) -> None:
        self.ray, self.workers = _connect(address), workers
        self.needs = {kind: need for kind, need in (("CPU", cpus), ("GPU", gpus)) if need}
        self.task = self.ray.remote(run_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self.settings = train, os.getcwd(), list(modules), threads
        self.running: dict[Any, str] = {}
        """Run directories by Ray's references."""
        if self.free() < 1:
            self.close()
            wanted = f"{cpus:g} CPUs and {gpus:g} GPUs for a run; lower --cpus-per-run or --gpus-per-run"
            raise ValueError(f"no node of the Ray cluster has {wanted}")

    def free(self) -> int:
        """Places on the nodes that are alive now, less the running cells; a cell never spans nodes."""
        free = 0
        for node in self.ray.nodes():
            if node["Alive"]:
                fits = [int(node["Resources"].get(kind, 0.0) / need + 1e-9) for kind, need in self.needs.items()]
                free += min(fits, default=0)
        return min(free, self.workers or free) - len(self.running)

    def start(self, argv: list[str], directory: str, fingerprint: str) -> None:
        """Submits a task."""
        self.running[self.task.remote(*self.settings, argv, directory, fingerprint)] = directory

    def wait(self, seconds: float) -> dict[str, int]:
        """Exit statuses of the cells that have ended; LOST for those whose worker or node is gone."""
        if not self.running:
            time.sleep(seconds)
            return {}
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        return {self.running.pop(reference): self._status(reference) for reference in ended}

    def close(self) -> None:
        """Cancels tasks, whose processes end with the workers; then leaves the cluster, or ends one of its own."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=_END_SECONDS)
        self.ray.shutdown()

    def _status(self, reference: Any) -> int:
        try:
            return int(self.ray.get(reference))
        except self.ray.exceptions.RayTaskError as error:
            raise ValueError(str(error.cause)) from error
        except self.ray.exceptions.RayError:
            return LOST


def run_cell(
    train: Train, folder: str, modules: list[str], threads: int, argv: list[str], directory: str, fingerprint: str
) -> int:
    """A task on any node: the cell in a process of its own, so that a crash differs from a lost worker."""
    import ray

    if not os.path.isdir(folder):
        raise ValueError(f"{folder} is no folder on {os.uname().nodename}; start in one that all nodes share")
    os.chdir(folder)
    # A child would otherwise run the file of Ray's worker once more, as its main module.
    vars(sys.modules["__main__"]).pop("__file__", None)
    preload(modules, threads)
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(given)} if given else {}
    process = start(train_cell, train, argv, directory, fingerprint, environment)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _connect(address: str | None) -> Any:
    """Ray, connected to a cluster, or to one of this machine's own; it reports to nobody."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError('--engine ray needs Ray: pip install "vitexp[ray]"') from error
    options: dict[str, Any] = {"logging_level": "ERROR"}
    if not address:
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address or "local", log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"no Ray cluster answers at {address or 'this machine'}: {said}") from error
    return ray
