"""Where the cells of a study run: on this machine, or on a Ray cluster; each in a process of its own.

Both engines say how many more cells are `free` to start, `start` one, `wait` so many seconds for one to end, and give
the exit status of each that has (-n: by signal n; LOST) by its run directory. `close` ends those that still run.
"""

import os
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vitexp.study.resolve import ResolvedCell
from vitexp.study.run import worker
from vitexp.study.run.worker import Train, train_cell

LOST = 256
"""The status of a cell whose process is gone with its machine: nothing is known of it, so it may be run again."""
_NO_SERVER = 255
"""What Python says of a process whose fork server was killed, and the process with it."""
_END_SECONDS = 10.0
_OBJECT_STORE_BYTES = 80 << 20  # nothing but exit statuses travels


class LocalEngine:
    """So many processes on this machine; on GPUs, they take one each in turn."""

    def __init__(self, train: Train, workers: int | None = None) -> None:
        self.train, self.gpus = train, visible_gpus()
        self.slots = list(range(workers or len(os.sched_getaffinity(0))))
        self.running: dict[str, tuple[BaseProcess, int]] = {}

    def free(self) -> int:
        """The slots that no cell is in."""
        return len(self.slots)

    def start(self, cell: ResolvedCell, argv: list[str]) -> None:
        """Starts a process."""
        slot = self.slots.pop(0)
        environment = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        process = worker.start(train_cell, self.train, argv, cell.run_directory, cell.fingerprint, environment)
        self.running[cell.run_directory] = process, slot

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
                    worker.kill(process)  # with what it started
        return statuses

    def close(self) -> None:
        """Ends processes with all that they started; those that train have some time to save a checkpoint."""
        worker.end_gently([process for process, _ in self.running.values()], _END_SECONDS)


def visible_gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


class RayEngine:
    """Each cell as a Ray task that takes `cpus` and `gpus`, fractions allowed, on as many nodes as there are.

    What is finished, and who may train where, is still said by records and locks in the study's folder, which all nodes
    must see. Ray's own retries stay off, because a lost cell is to go on from its checkpoint, and not at all while its
    old process may be alive.

    Raises: ValueError when Ray is not installed, no cluster answers, or no node can hold a cell.
    """

    def __init__(
        self,
        train: Train,
        *,
        preload: Sequence[str],
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        threads: int = 1,
        workers: int | None = None,
    ) -> None:
        self.ray, self.workers = _connect(address), workers
        self.needs = {kind: need for kind, need in (("CPU", cpus), ("GPU", gpus)) if need}
        self.task = self.ray.remote(run_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self.settings = train, os.getcwd(), list(preload), threads
        self.running: dict[Any, str] = {}
        """Run directories by Ray's references."""
        if self.free() < 1:
            self.close()
            wanted = f"{cpus:g} CPUs and {gpus:g} GPUs for a run; lower --cpus-per-run or --gpus-per-run"
            raise ValueError(f"no node of the Ray cluster has {wanted}")

    def free(self) -> int:
        """Places on the nodes that are alive now, less the running cells; a cell never spans nodes."""
        places = 0
        for node in self.ray.nodes():
            if node["Alive"]:
                fits = [int(node["Resources"].get(kind, 0.0) / need + 1e-9) for kind, need in self.needs.items()]
                places += min(fits, default=0)
        return min(places, self.workers or places) - len(self.running)

    def start(self, cell: ResolvedCell, argv: list[str]) -> None:
        """Submits a task."""
        self.running[self.task.remote(*self.settings, argv, cell.run_directory, cell.fingerprint)] = cell.run_directory

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
    train: Train, place: str, preload: list[str], threads: int, argv: list[str], directory: str, fingerprint: str
) -> int:
    """A task on any node: the cell in a process of its own, so that a crash differs from a lost worker.

    Raises: ValueError when this node does not see the folder that the study was started in.
    """
    import ray

    if not os.path.isdir(place):
        raise ValueError(f"{place} is no folder on {os.uname().nodename}; start in one that all nodes share")
    os.chdir(place)
    # A child would otherwise run the file of Ray's worker once more, as its main module.
    vars(sys.modules["__main__"]).pop("__file__", None)
    worker.preload(preload, threads)
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(given)} if given else {}
    process = worker.start(train_cell, train, argv, directory, fingerprint, environment)
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
