"""RandAugment as timm defines it, with random numbers that belong to the sample.

timm draws from the two global generators of Python and NumPy. They are seeded for each sample, under a lock, and put
back.
"""

import random
import threading
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vitexp.data.keyed import draws, key

POLICY = "rand-m9-n2-mstd0.5-inc1"  # two operations of magnitude 9 +- 0.5, each done every second time (DeiT's choice)
_PURPOSE = 0x52414E44
_GREY = (128, 128, 128)  # what moves in from outside
_lock = threading.Lock()


def rand_augmented(images: np.ndarray, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """Each image after its own operations.

    Shapes: uint8 (B, S, S, 3), samples (B,) -> uint8 (B, S, S, 3).
    """
    seeds = draws(key(seed, epoch, _PURPOSE), samples, 2)
    policy = _policy(images.shape[1])
    results = np.empty_like(images)
    with _lock:
        before = random.getstate(), np.random.get_state()
        try:
            for i, (first, second) in enumerate(seeds.tolist()):
                random.seed(first)
                np.random.seed(second & 0xFFFFFFFF)
                results[i] = np.asarray(policy(Image.fromarray(images[i])))
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
    return results


@cache
def _policy(size: int) -> Any:
    """timm's transform for images of one size; posterizing to no bits at all is black, as it was before Pillow 13."""
    from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
    from timm.data.auto_augment import rand_augment_transform

    policy = rand_augment_transform(POLICY, {"translate_const": int(size * 0.45), "img_mean": _GREY})
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return policy


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)
