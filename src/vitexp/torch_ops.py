"""Lets a CPU-only torch live beside the ordinary torchvision wheel.

The torchvision wheel for Linux is built for CUDA. Beside a CPU build of torch its compiled library does not load, and
the import of torchvision then fails while it describes two operators that the library should have defined. timm,
torchmetrics and lightning all import torchvision, so this module declares the two schemas, and only where they are
absent. It must be imported before those three. The operators themselves (detection) are never called here.
"""

from importlib.util import find_spec

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")

if torch.version.cuda is None and torch.version.hip is None and find_spec("torchvision") is not None:
    for name in ("nms", "qnms"):
        if not torch._C._dispatch_has_kernel(f"torchvision::{name}"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
