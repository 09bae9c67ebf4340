"""Families of ImageNet-C at five severities, in NumPy, SciPy and Pillow: 8 of the 15 that were published.

The constants are those of ImageNet-C (224 pixels) and of CIFAR-10-C (32 pixels); at other sizes there are none. The
noise of an image follows from its number in the split. Source: Hendrycks and Dietterich 2019, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", and its code (Apache-2.0). Not among them: glass, motion
and zoom blur, snow, frost, fog and elastic, which need ImageMagick, OpenCV, or photographs of ice. Why no library: the
kept copies of the published code call functions that scikit-image and NumPy 2 no longer have, and none has CIFAR's.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, correlate1d

from vitexp.data.order import draws, key
from vitexp.eval.changes import PURPOSE
from vitexp.metrics import CORRUPTIONS

CONSTANTS: dict[int, dict[str, tuple[Any, ...]]] = {
    224: {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (25, 18, 15, 10, 7),
    },
    32: {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": (80, 65, 58, 50, 40),
    },
}
"""By image size, family and severity, as published."""
_NEAREST = 96
"""At a size without constants of its own, those of 32 pixels hold below this, those of 224 from it on."""


def constants_for(size: int) -> dict[str, tuple[Any, ...]]:
    """Those of the published size that is nearest, by which corruptions of ours are made."""
    return CONSTANTS[32 if size < _NEAREST else 224]


def corrupted(images: np.ndarray, samples: np.ndarray, family: str, constant: Any) -> np.ndarray:
    """The images after one corruption; what is computed in floats is cut off to whole numbers, as published.

    Shapes: uint8 (B, H, W, 3), samples (B,) -> uint8 (B, H, W, 3).
    """
    if family in _OF_FILES:
        return np.stack([np.asarray(_OF_FILES[family](Image.fromarray(image), constant)) for image in images])
    change, seeds = _OF_PIXELS[family], draws(key(PURPOSE, 16 + CORRUPTIONS.index(family)), samples, 1)[:, 0].tolist()
    shares = images / 255.0
    changed = [change(one, constant, np.random.default_rng(seed)) for one, seed in zip(shares, seeds, strict=True)]
    return (np.clip(np.stack(changed), 0, 1) * 255).astype(np.uint8)


def _gaussian(image: np.ndarray, spread: float, random: np.random.Generator) -> np.ndarray:
    return image + random.normal(size=image.shape, scale=spread)


def _shot(image: np.ndarray, photons: float, random: np.random.Generator) -> np.ndarray:
    return random.poisson(image * photons) / photons


def _impulse(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    hit, salt = random.random(image.shape) < amount, random.random(image.shape) < 0.5
    return np.where(hit, salt.astype(float), image)


def defocus_kernel(radius: float, spread: float) -> np.ndarray:
    """A disk whose edge is smoothed by a Gaussian of 3 taps (5 beyond a radius of 8), without its rim of zeros."""
    far = 8 if radius <= 8 else int(radius)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    across, down = np.meshgrid(np.arange(-far, far + 1), np.arange(-far, far + 1))
    disk = (across**2 + down**2 <= radius**2).astype(float)
    smooth = np.exp(-(taps**2) / (2 * spread**2))
    disk /= disk.sum()
    for axis in (0, 1):
        disk = correlate1d(disk, smooth / smooth.sum(), axis, mode="mirror")
    used = np.flatnonzero(disk[far] > 0)
    return disk[used[0] : used[-1] + 1, used[0] : used[-1] + 1]


def _defocus(image: np.ndarray, constant: tuple[float, float], _: np.random.Generator) -> np.ndarray:
    blurred: np.ndarray = correlate(image, defocus_kernel(*constant)[:, :, None], mode="mirror")
    return blurred


def _brightness(image: np.ndarray, more: float, _: np.random.Generator) -> np.ndarray:
    """More of the V of HSV at the same hue and saturation: all channels by one factor; black becomes grey."""
    value = image.max(axis=2, keepdims=True)
    after = np.minimum(value + more, 1)
    return np.where(value > 0, image * after / np.where(value > 0, value, 1), after)


def _contrast(image: np.ndarray, share: float, _: np.random.Generator) -> np.ndarray:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * share + mean


def _pixelate(image: Image.Image, share: float) -> Image.Image:
    small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BOX)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


_OF_PIXELS: dict[str, Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": _gaussian, "shot_noise": _shot, "impulse_noise": _impulse, "defocus_blur": _defocus,
    "brightness": _brightness, "contrast": _contrast,
}  # fmt: skip
_OF_FILES: dict[str, Callable[[Image.Image, Any], Image.Image]] = {"pixelate": _pixelate, "jpeg_compression": _jpeg}
