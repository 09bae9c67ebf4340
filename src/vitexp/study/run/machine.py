"""What this machine has for the workers of a study: cores and GPUs."""

import itertools
import os
from pathlib import Path


def available_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def core_shares(workers: int, threads: int) -> list[list[int]]:
    """All cores, shared out evenly over the workers; nothing for any of them where the cores are too few for their
    threads, or where the system binds no process to cores.
    """
    cores = available_cores()
    if workers * threads > len(cores) or not hasattr(os, "sched_setaffinity"):
        return [[] for _ in range(workers)]
    ends = [i * len(cores) // workers for i in range(workers + 1)]
    return [cores[start:end] for start, end in itertools.pairwise(ends)]


def visible_gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
