"""Families of ImageNet-C at five severities, in NumPy, SciPy and Pillow: 14 of the 15 that were published.

The constants are those of ImageNet-C (224 pixels) and of CIFAR-10-C (32 pixels); at other sizes there are none. What is
drawn for an image follows from its number in the split. Source: Hendrycks and Dietterich 2019, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", and its code (Apache-2.0). Not among them is frost, which
needs their photographs of ice. Why no library: the kept copies of the published code call functions that scikit-image
and NumPy 2 no longer have or blur otherwise than ImageMagick did, need OpenCV, and have no constants of CIFAR's.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, correlate1d, gaussian_filter, map_coordinates, zoom

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
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "elastic_transform": (  # the published code has 244, not 224
            (488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88),
        ),
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
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "elastic_transform": (
            (0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96),
        ),
    },
}  # fmt: skip
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
    seeds = draws(key(PURPOSE, 16 + CORRUPTIONS.index(family)), samples, 1)[:, 0].tolist()
    change, randoms, shares = _OF_PIXELS[family], map(np.random.default_rng, seeds), images / 255.0
    changed = [change(one, constant, random) for one, random in zip(shares, randoms, strict=True)]
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


def glass_moves(shape: tuple[int, ...], constant: tuple[float, int, int], random: np.random.Generator) -> np.ndarray:
    """By how much rows and columns each pixel is taken from elsewhere: (iterations, H, W, 2), each in -far..far - 1."""
    _, far, iterations = constant
    return random.integers(-far, far, (iterations, *shape[:2], 2))


def _glass(image: np.ndarray, constant: tuple[float, int, int], random: np.random.Generator) -> np.ndarray:
    """Smoothed, each pixel from the lower right on replaced by one nearby, and smoothed again.

    The published code means to swap both, but writes through views, so that the other pixel stays as it is.
    """
    sigma, far, _ = constant
    soft = (_smooth(image, sigma) * 255).astype(np.uint8)
    rows, columns = image.shape[:2]
    pixels = list(map(tuple, soft.reshape(-1, 3).tolist()))  # as a list it is ten times as fast
    for moves in (glass_moves(image.shape, constant, random) @ (columns, 1)).tolist():
        for row in range(rows - far, far, -1):
            for column in range(columns - far, far, -1):
                place = row * columns + column
                pixels[place] = pixels[place + moves[row][column]]
    return _smooth(np.array(pixels, np.uint8).reshape(image.shape) / 255, sigma)


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    return blurred


def moved_blur(image: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Half a Gaussian along a line of whole pixels, from each pixel onwards, as ImageMagick blurs by motion."""
    steps, angle = np.arange(2 * radius + 1), math.radians(degrees)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (math.sin(angle), math.cos(angle)))
    rows, columns = (np.arange(count) for count in image.shape[:2])
    return sum(
        weight * image[(rows + dy).clip(0, rows[-1])[:, None], (columns + dx).clip(0, columns[-1])]
        for weight, dy, dx in zip(weights / weights.sum(), down, right, strict=True)
    )


def _motion(image: np.ndarray, constant: tuple[int, float], random: np.random.Generator) -> np.ndarray:
    return moved_blur(image, *constant, random.uniform(-45, 45))


def _cut_off(shares: np.ndarray) -> np.ndarray:
    """As bytes hold them."""
    whole: np.ndarray = np.floor(shares.clip(0, 1) * 255) / 255
    return whole


def _enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle, larger: (H, W, channels), linear."""
    size = len(image)
    inner = math.ceil(size / factor)
    top = (size - inner) // 2
    large = zoom(image[top : top + inner, top : top + inner], (factor, factor, 1), order=1)
    top = (len(large) - size) // 2
    return large[top : top + size, top : top + size]


def _zoom(image: np.ndarray, constant: tuple[float, float], _: np.random.Generator) -> np.ndarray:
    views = [_enlarged(image, factor) for factor in np.arange(1, *constant)]
    return np.mean([image, *views], axis=0)


def _snow(image: np.ndarray, constant: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    """Flakes of noise that are blown to two sides, over paler colours."""
    mean, spread, factor, least, radius, sigma, colour = constant
    flakes = _enlarged(random.normal(mean, spread, (*image.shape[:2], 1)), factor)
    flakes = _cut_off(np.where(flakes < least, 0, flakes))
    flakes = _cut_off(moved_blur(flakes, int(radius), sigma, random.uniform(-135, -45)))
    grey = image @ (0.299, 0.587, 0.114)
    paler = colour * image + (1 - colour) * np.maximum(image, 1.5 * grey[..., None] + 0.5)
    return paler + flakes + np.rot90(flakes, 2)


def plasma(size: int, decay: float, random: np.random.Generator) -> np.ndarray:
    """Clouds that go on beyond each border, by diamonds and squares: shares (size, size), `size` a power of two."""
    clouds, step, spread = np.zeros((size, size)), size, 1.0
    while step >= 2:
        half = step // 2
        corners, middles = clouds[::step, ::step], clouds[half::step, half::step]

        def drawn(of_four: np.ndarray, spread: float = spread) -> np.ndarray:
            return of_four / 4 + spread * random.uniform(-spread, spread, of_four.shape)

        beside = corners + np.roll(corners, -1, 0)
        middles[:] = drawn(beside + np.roll(beside, -1, 1))
        clouds[::step, half::step] = drawn(middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1))
        clouds[half::step, ::step] = drawn(middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0))
        step, spread = half, spread / decay
    return (clouds - clouds.min()) / np.ptp(clouds)


def _fog(image: np.ndarray, constant: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    thick, decay = constant
    rows, columns, _ = image.shape
    clouds = plasma(1 << (max(rows, columns) - 1).bit_length(), decay, random)[:rows, :columns, None]
    return (image + thick * clouds) * image.max() / (image.max() + thick)


def _elastic(image: np.ndarray, constant: tuple[float, float, float], random: np.random.Generator) -> np.ndarray:
    """Three points of the image are drawn apart, and then each pixel a little, alike nearby."""
    far, sigma, apart = constant
    rows, columns, _ = image.shape
    middle, reach = np.array([columns, rows]) // 2, min(rows, columns) // 3
    before = middle + reach * np.array([(1, 1), (1, -1), (-1, -1)])
    after = before + random.uniform(-apart, apart, before.shape)
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)  # (x, y, 1) of the result -> x, y before
    right, down = (
        far * gaussian_filter(random.uniform(-1, 1, (rows, columns)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    )
    y, x = np.mgrid[:rows, :columns]
    fro = np.stack([x, y, np.ones_like(x)], axis=-1) @ back
    turned = _at(image, fro[..., 1], fro[..., 0], "mirror")
    return _at(turned, y + down, x + right, "reflect")


def _at(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, mode: str) -> np.ndarray:
    """The colours between pixels, linear."""
    return np.stack([map_coordinates(one, (rows, columns), order=1, mode=mode) for one in image.transpose(2, 0, 1)], -1)


_OF_PIXELS: dict[str, Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": _gaussian, "shot_noise": _shot, "impulse_noise": _impulse, "defocus_blur": _defocus,
    "brightness": _brightness, "contrast": _contrast, "glass_blur": _glass, "motion_blur": _motion, "zoom_blur": _zoom,
    "snow": _snow, "fog": _fog, "elastic_transform": _elastic,
}  # fmt: skip
_OF_FILES: dict[str, Callable[[Image.Image, Any], Image.Image]] = {"pixelate": _pixelate, "jpeg_compression": _jpeg}
