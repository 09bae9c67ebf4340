"""Lets a CPU-only torch live beside the ordinary torchvision wheel.

The torchvision wheel for Linux is built for CUDA. Beside a CPU build of torch its compiled library does not load, and
the import of torchvision then fails while it describes two operators that the library should have defined. timm,
torchmetrics and lightning all import torchvision, so this module declares the two schemas, and only where they are
absent. It must be imported before those three. The operators themselves (detection) are never called here.
"""

from importlib.util import find_spec

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library = torch.library.Library("torchvision", "FRAGMENT")


def declare_missing() -> list[str]:
    """Declares the torchvision operators that are absent; returns their names."""
    if torch.version.cuda is not None or torch.version.hip is not None or find_spec("torchvision") is None:
        return []
    missing = [name for name in _SCHEMAS if not torch._C._dispatch_has_kernel(f"torchvision::{name}")]
    for name in missing:
        _library.define(_SCHEMAS[name])
    return missing


declare_missing()
