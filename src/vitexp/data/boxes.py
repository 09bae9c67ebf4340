"""Which part of an image a view shows: boxes of (top, left, height, width) in whole pixels, one a sample."""

import numpy as np

AREA = (0.05, 1.0)  # of the image; the paper's pre-processing, "Inception crop" with 5 to 100 %
ASPECT = (3 / 4, 4 / 3)  # width to height
TRIES = 10
DRAWS = 2 + 2 * TRIES
CENTRE = 7 / 8  # 224 of 256: the part of the shorter side that a centre crop keeps


def inception_boxes(draws: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Random boxes: area uniform, aspect log-uniform, the first of ten tries that lies inside the image.

    Where none does, the box is the largest centred one whose aspect is allowed.
    Shapes: draws (B, DRAWS) in [0, 1), heights and widths (B,) -> int64 (B, 4).
    Source: Szegedy et al. 2015 in the form of torchvision's RandomResizedCrop (TensorFlow's op, which big_vision uses,
    draws the height uniformly instead of the area).
    """
    h, w = np.asarray(heights, np.float64)[:, None], np.asarray(widths, np.float64)[:, None]
    area = (AREA[0] + (AREA[1] - AREA[0]) * draws[:, 2 : 2 + TRIES]) * h * w
    low, high = np.log(ASPECT)
    aspect = np.exp(low + (high - low) * draws[:, 2 + TRIES : DRAWS])
    tall, wide = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (tall >= 1) & (wide >= 1) & (tall <= h) & (wide <= w)
    first = np.argmax(fits, axis=1)[:, None]
    tall, wide = np.take_along_axis(tall, first, 1), np.take_along_axis(wide, first, 1)
    top, left = np.floor(draws[:, 0:1] * (h - tall + 1)), np.floor(draws[:, 1:2] * (w - wide + 1))
    boxes = np.hstack([top, left, tall, wide])
    return np.where(fits.any(1, keepdims=True), boxes, _largest(h, w)).astype(np.int64)


def _largest(h: np.ndarray, w: np.ndarray) -> np.ndarray:
    wide = np.minimum(w, np.rint(h * ASPECT[1]))
    tall = np.minimum(h, np.rint(w / ASPECT[0]))
    return np.hstack([(h - tall) // 2, (w - wide) // 2, tall, wide])


def whole_boxes(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The whole of each image."""
    h, w = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
    return np.stack([np.zeros_like(h), np.zeros_like(w), h, w], axis=1)


def centre_boxes(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The square in the middle, 7/8 of the shorter side: resize to 8/7 of the size and crop, in one step."""
    h, w = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
    side = np.maximum(np.rint(np.minimum(h, w) * CENTRE).astype(np.int64), 1)
    return np.stack([(h - side) // 2, (w - side) // 2, side, side], axis=1)
