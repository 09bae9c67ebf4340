"""How a run computes: in what precision its matrix products, on how many threads, compiled or not."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vitexp.data.module import ShardData
from vitexp.eval.flops import train_flops
from vitexp.train.config import RunConfig
from vitexp.train.module import Classifier


@contextmanager
def matmul_precision(word: str) -> Iterator[None]:
    """Products of fp32 matrices are computed so in the block, and afterwards as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(word)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


_OMP = "OMP_NUM_THREADS"
_FLOPS_A_THREAD = 10e9
"""Of a training step. Two threads with that much each take half the time of one; with a tenth of it they still gain a
third on cores of their own, but lose many times that where other processes want the cores too.
"""


def threads_for(run: RunConfig, trainer: Any, module: Classifier, data: ShardData) -> int:
    """How many threads of a CPU a run computes with: by its options and the machine's cores, never by their load."""
    if run.threads:
        return run.threads
    if os.environ.get(_OMP) or trainer.strategy.root_device.type != "cpu":
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    step = train_flops(module.config, data.batch_size // trainer.world_size)
    return max(1, min(cores // trainer.num_devices, int(step / _FLOPS_A_THREAD)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """This process, and those that it starts, compute with so many threads in the block, and afterwards as before."""
    before, spoken = torch.get_num_threads(), os.environ.get(_OMP)
    torch.set_num_threads(count)
    os.environ[_OMP] = str(count)  # where it is not set, Lightning chooses a number of its own for several processes
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop(_OMP) if spoken is None else os.environ.update({_OMP: spoken})


def compile_network(trainer: Any, module: Classifier, data: ShardData) -> float:
    """Compiles the network for training, by a pass over blank images that leaves no trace; gives the seconds.

    Raises: ValueError where it cannot be compiled.
    """
    start, device = time.perf_counter(), trainer.strategy.root_device
    # dropout draws what it would draw uncompiled
    module.compiled = torch.compile(module.network.forward, options={"fallback_random": True})
    images = torch.zeros(data.batch_size // trainer.world_size, 3, data.size, data.size, device=device)
    images = trainer.precision_plugin.convert_input(images)
    torch._dynamo.maybe_mark_dynamic(images, 0)  # the last batch of an epoch is smaller
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            with trainer.precision_plugin.forward_context():
                logits = module(images)
            torch.autograd.grad(logits.float().sum(), [p for _, p in module.trained()], allow_unused=True)
    except RuntimeError as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"run.compile is true, but torch.compile failed ({why}); it needs a C++ compiler, and Triton on a GPU: "
            "install them, or leave run.compile out"
        ) from error
    return time.perf_counter() - start
