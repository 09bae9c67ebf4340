"""Where the cells of a study run, which the runner knows no more of: this machine here, a cluster in ray_engine.py."""

import os
import sys
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from vitexp.study.plan import PlannedCell
from vitexp.study.run.worker import Train, end_gently, fork_server, kill, train_cell, visible_gpus

LOST = 256
"""The status of a cell whose process is gone with its machine: nothing is known of it, so it may be run again."""
_NO_SERVER = 255
"""What Python says of a process whose fork server was killed, and the process with it."""
_END_SECONDS = 10.0


class Engine(Protocol):
    """Starts cells, each in a process of its own, and says how they ended. A job is the engine's own word for one."""

    def free(self, running: int) -> int:
        """How many more cells can start beside those that run."""

    def start(self, cell: PlannedCell, argv: list[str]) -> Hashable:
        """Starts a cell with these arguments; gives its job."""

    def wait(self, jobs: Collection[Hashable], seconds: float) -> dict[Hashable, int]:
        """Waits until a job has ended, at most so long; the exit status of each that has (-n: by signal n), or LOST."""

    def stop(self, jobs: Collection[Hashable]) -> None:
        """Ends jobs at once."""

    def close(self) -> None:
        """Gives back what the engine holds."""


class LocalEngine:
    """So many processes on this machine; on GPUs, they take one each in turn."""

    def __init__(self, context: ForkServerContext, train: Train, workers: int | None = None) -> None:
        self.context = context
        self.train = train
        self.slots = list(range(workers or len(os.sched_getaffinity(0))))
        self.devices = visible_gpus()
        self.processes: dict[Hashable, tuple[BaseProcess, int]] = {}

    def free(self, running: int) -> int:
        """The slots that no cell is in."""
        return len(self.slots)

    def start(self, cell: PlannedCell, argv: list[str]) -> Hashable:
        """Starts a process; the job is its number."""
        slot = self.slots.pop(0)
        environment = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {}
        process = self.context.Process(
            target=train_cell, args=(self.train, argv, cell.run_directory, cell.fingerprint, environment)
        )
        process.start()
        self.processes[process.pid] = process, slot
        return process.pid

    def wait(self, jobs: Collection[Hashable], seconds: float) -> dict[Hashable, int]:
        """Exit statuses of the processes that have ended."""
        if jobs:
            wait([self.processes[job][0].sentinel for job in jobs], seconds)
        else:
            time.sleep(seconds)
        return {job: self._collect(job) for job in list(jobs) if not self.processes[job][0].is_alive()}

    def stop(self, jobs: Collection[Hashable]) -> None:
        """Ends processes with all that they started; those that train have some time to save a checkpoint."""
        end_gently([self.processes[job][0] for job in jobs], _END_SECONDS)

    def close(self) -> None:
        """Nothing is held but processes, and they have ended."""

    def _collect(self, job: Hashable) -> int:
        process, slot = self.processes.pop(job)
        process.join()
        self.slots.append(slot)
        status = process.exitcode
        if status == _NO_SERVER:
            kill(process)  # with what it started
        process.close()
        assert status is not None
        return LOST if status == _NO_SERVER else status


# The cells of a study on a Ray cluster: on as many nodes as it has, several on a GPU if asked for.
# Ray finds a place for each cell and says when a worker or a node is gone; what is finished, and who may train where,
# is still said by records and locks in the study's folder, which all nodes must see. Ray's own retries stay off,
# because a lost cell is to go on from its checkpoint, and not at all while its old process may be alive.

_OBJECT_STORE_BYTES = 80 << 20  # nothing but exit statuses travels
_RAY_END_SECONDS = 10.0


class RayEngine:
    """Each cell as a Ray task that takes `cpus` and `gpus`, fractions allowed.

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
        self.ray = _start(address)
        self.train, self.preload, self.threads, self.workers = train, list(preload), threads, workers
        self.cpus, self.gpus = cpus, gpus
        self.task = self.ray.remote(run_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        if self._places() < 1:
            self.close()
            raise ValueError(
                f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs for a run; "
                "lower --cpus-per-run or --gpus-per-run"
            )

    def free(self, running: int) -> int:
        """Places on the nodes that are alive now, less the running cells."""
        places = self._places()
        return min(places, self.workers or places) - running

    def start(self, cell: PlannedCell, argv: list[str]) -> Hashable:
        """Submits a task; the job is its reference."""
        reference: Hashable = self.task.remote(
            self.train, argv, cell.run_directory, cell.fingerprint, os.getcwd(), self.preload, self.threads
        )
        return reference

    def wait(self, jobs: Collection[Hashable], seconds: float) -> dict[Hashable, int]:
        """Exit statuses of the cells that have ended; LOST for those whose worker or node is gone."""
        references: list[Any] = list(jobs)
        if not references:
            return {}
        self.ray.wait(references, num_returns=1, timeout=seconds)
        ended, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        return {reference: self._status(reference) for reference in ended}

    def stop(self, jobs: Collection[Hashable]) -> None:
        """Cancels tasks; their processes end with the workers."""
        references: list[Any] = list(jobs)
        for reference in references:
            self.ray.cancel(reference, force=True)
        if references:
            self.ray.wait(references, num_returns=len(references), timeout=_RAY_END_SECONDS)

    def close(self) -> None:
        """Leaves the cluster, and ends one that was started here."""
        self.ray.shutdown()

    def _status(self, reference: Any) -> int:
        errors = self.ray.exceptions
        try:
            status: int = self.ray.get(reference)
        except errors.RayTaskError as error:
            raise ValueError(str(error.cause)) from error
        except errors.RayError:
            return LOST
        return status

    def _places(self) -> int:
        """Cells that fit at once: a cell never spans nodes."""
        return sum(self._fit(node["Resources"]) for node in self.ray.nodes() if node["Alive"])

    def _fit(self, resources: Mapping[str, float]) -> int:
        fits = [
            int(resources.get(kind, 0.0) / need + 1e-9)
            for kind, need in (("CPU", self.cpus), ("GPU", self.gpus))
            if need
        ]
        return min(fits, default=0)


def run_cell(
    train: Train, argv: list[str], directory: str, fingerprint: str, place: str, preload: list[str], threads: int
) -> int:
    """A task on any node: the cell in a process of its own, so that a crash differs from a lost worker.

    Raises: ValueError when this node does not see the folder that the study was started in.
    """
    if not os.path.isdir(place):
        raise ValueError(
            f"{place} is no folder on {os.uname().nodename}; start the study in a folder that all nodes share"
        )
    context = _processes(preload, threads)
    process = context.Process(target=train_in, args=(place, train, argv, directory, fingerprint, _gpus_of_this_task()))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def train_in(place: str, *cell: Any) -> None:
    """`train_cell` in another folder than the cluster's own."""
    os.chdir(place)
    train_cell(*cell)


def _processes(preload: list[str], threads: int) -> ForkServerContext:
    # A child would otherwise run the file of Ray's worker once more, as its main module.
    vars(sys.modules["__main__"]).pop("__file__", None)
    return fork_server(preload, threads)


def _gpus_of_this_task() -> dict[str, str]:
    import ray

    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return {"CUDA_VISIBLE_DEVICES": ",".join(given)} if given else {}


def _start(address: str | None) -> Any:
    """Ray, connected to a cluster, or to one of this machine's own; it reports to nobody."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError('--engine ray needs Ray: pip install "vitexp[ray]"') from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, **quiet) if address else ray.init(address="local", **own, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"no Ray cluster answers at {address or 'this machine'}: {said}") from error
    return ray
