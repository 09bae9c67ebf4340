"""What timm and torchvision do to training images after the crop; a sample gets the same whatever is drawn around it.

They draw from the global generators of Python, NumPy and torch. Those are seeded for each sample, under a lock, and put
back.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vitexp.data.order import draws, key

_GREY = (128, 128, 128)  # what moves in from outside
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: the units in which timm's noise is drawn
_POLICY = 0x52414E44  # separates these draws of a seed and epoch from others
_lock = threading.Lock()

Step = Callable[[Image.Image], Image.Image]


def applied(
    images: np.ndarray, policy: str | Step, jitter: float, erasing: float, seed: int, epoch: int, samples: np.ndarray
) -> np.ndarray:
    """Each image after a policy of timm or of the user's own, a jitter of colours and an erased box, in this order.

    Shapes: uint8 (B, S, S, 3), samples (B,) -> uint8 (B, S, S, 3).
    """
    transform = steps(images.shape[1], policy, jitter, erasing)
    if not transform:
        return images
    seeds, results = draws(key(seed, epoch, _POLICY), samples, 2), np.empty_like(images)
    with _lock, _generators_put_back():
        for i, (first, second) in enumerate(seeds.tolist()):
            random.seed(first)
            np.random.seed(second & 0xFFFFFFFF)
            torch.default_generator.manual_seed(first >> 1)
            image = Image.fromarray(images[i])
            for step in transform:
                image = step(image)
            results[i] = np.asarray(image)
    return results


@contextmanager
def _generators_put_back() -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@cache
def steps(size: int, policy: str | Step, jitter: float, erasing: float) -> tuple[Step, ...]:
    """What is done to images of one size, in its order. Source: timm's transforms_factory."""
    if policy == "none" and not jitter and not erasing:
        return ()
    from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
    from timm.data.random_erasing import RandomErasing
    from torchvision.transforms import ColorJitter

    found: list[Step] = [] if policy == "none" else [timms(policy, size) if isinstance(policy, str) else policy]
    found += [ColorJitter(jitter, jitter, jitter)] if jitter else []
    found += [partial(_erased, RandomErasing(erasing, mode="pixel", device="cpu"))] if erasing else []
    return tuple(found)


def timms(policy: str, size: int) -> Any:
    """timm's transform for images of one size; posterizing to no bits at all is black, as it was before Pillow 13."""
    from timm.data import auto_augment as timm

    options: dict[str, Any] = {"translate_const": int(size * 0.45), "img_mean": _GREY}
    if policy.startswith("augmix"):
        found = timm.augment_and_mix_transform(policy, options | {"translate_pct": 0.3})
    elif policy.startswith("rand"):
        found = timm.rand_augment_transform(policy, options)
    else:
        found = timm.auto_augment_transform(policy, options)
    for operation in found.ops if hasattr(found, "ops") else chain.from_iterable(found.policy):
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return found


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _erased(erase: Callable[[Tensor], Tensor], image: Image.Image) -> Image.Image:
    """An image whose box is noise in the units of timm's normalised images, cut off at black and white."""
    noise = erase(torch.full((3, image.height, image.width), torch.nan)).permute(1, 2, 0).numpy()
    pixels = np.clip(np.rint(255 * (noise * _STD + _MEAN)), 0, 255)
    return Image.fromarray(np.where(np.isnan(noise), np.asarray(image), pixels).astype(np.uint8))
