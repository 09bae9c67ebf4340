"""A network as one ONNX file, for any number of images at a time; onnx and onnxruntime come with the extra `onnx`."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

MOST_BYTES = 2**31
"""What one file can hold: its format counts in 31 bits."""
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def onnx_bytes(model: nn.Module, image_size: tuple[int, int]) -> bytes:
    """The file: input `images` (B, 3, rows, columns) in [-1, 1], output `logits` (B, classes).

    Raises: ValueError where the extra is not installed, and for weights that one file cannot hold.
    """
    if absent := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"ONNX needs packages that are not here ({', '.join(absent)}): pip install 'vitexp[onnx]'")
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size >= MOST_BYTES:
        raise ValueError(f"ONNX cannot hold {size / 1e9:.1f} GB of weights in one file, at most {MOST_BYTES / 1e9:.1f}")
    images = torch.zeros(2, 3, *image_size)
    with _quiet():
        program = torch.onnx.export(
            model.eval().cpu(),
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "without a file name the exporter returns what it made"
    return program.model_proto.SerializeToString()


def onnx_logits(path: str | Path, images: np.ndarray) -> np.ndarray:
    """What onnxruntime computes from the file. Shapes: (B, 3, rows, columns) -> (B, classes)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(["logits"], {"images": images})[0]
    return logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its steps and warns of its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
