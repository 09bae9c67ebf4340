"""An augmentation of the user's own by import path, in the place of timm's policies (`data.auto_augment`).

It is called with one image, uint8 (S, S, 3), and a NumPy generator that belongs to seed, epoch and sample.
"""

import functools
import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vitexp.own import SLOTS, failing, load

_IMAGES, _TRIES = 4, 100


@dataclass(frozen=True)
class OwnStep:
    """What is done to an image after its crop."""

    path: str
    options: str
    """as JSON, so that equal steps are one"""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Raises: ValueError where the class fails, or gives another shape or type than that of the image."""
        pixels, what = np.array(image), f"auto_augment {self.path}"
        with failing(what):
            step = _built(load(SLOTS["auto_augment"], self.path).kind, self.options)
            found = step(pixels.copy(), np.random.default_rng(random.getrandbits(64)))  # seeded for each sample
        if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (pixels.shape, pixels.dtype):
            gives = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
            raise ValueError(f"{what} gives {gives} and must give uint8 {pixels.shape}; mend that class")
        return Image.fromarray(found)


@functools.cache
def _built(kind: Any, options: str) -> Any:
    return kind(**json.loads(options))


@functools.cache
def check(step: OwnStep, size: int) -> None:
    """Tries a few images of this size. Raises: ValueError for one that no run could use."""
    from vitexp.data.policy import applied

    images, samples = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3), np.uint8), np.arange(_IMAGES)
    together = applied(images, step, 0, 0, 0, 0, samples)
    alone = [applied(images[i : i + 1], step, 0, 0, 0, 0, samples[i : i + 1])[0] for i in samples[::-1]]
    if not np.array_equal(together[::-1], np.stack(alone)):
        raise ValueError(
            f"auto_augment {step.path} gives an image other pixels when other images come before it; draw from the "
            "generator that it is given, and keep nothing"
        )


def changes_something(step: OwnStep, size: int) -> bool:
    """Whether any of many images becomes another: of noise in dark, in bright and in all tones. Raises: as `check`."""
    from vitexp.data.policy import applied

    check(step, size)
    shades = np.random.default_rng(1).integers(0, 256, (3, size, size, 3), np.uint8)
    images = np.stack([shades[0], shades[1] // 4, 255 - shades[2] // 4])
    tries = (applied(images, step, 0, 0, 0, epoch, np.arange(3)) for epoch in range(_TRIES))
    return any(not np.array_equal(found, images) for found in tries)
