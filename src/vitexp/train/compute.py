"""How a run computes: the precision of its matrix products, and the network compiled for training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vitexp.data.module import ShardData
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
