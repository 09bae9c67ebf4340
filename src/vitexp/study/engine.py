"""Where the cells of a study run, which the runner knows no more of: this machine here, a cluster in ray_engine.py."""

import os
import time
from collections.abc import Collection, Hashable
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Protocol

from vitexp.study.plan import PlannedCell
from vitexp.study.worker import Train, end_gently, kill, train_cell, visible_gpus

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
