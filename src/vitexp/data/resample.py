"""Resizing many small images at once, each from its own box, with results that no machine rounds differently.

Bilinear with antialiasing (a triangle as wide as the reduction) is two products with weight matrices. The weights are
multiples of 2^-14 and the pixels whole numbers, so every partial sum is exact in float32, whatever its order.
"""

import numpy as np

_ONE = 2.0**14


def resize_boxes(images: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Each image's box as a square of `size`; what lies outside the box has no say.

    Shapes: uint8 (B, H, W, 3), boxes (B, 4) as top, left, height, width -> uint8 (B, size, size, 3).
    """
    count, height, width, channels = images.shape
    across = weights(boxes[:, 1], boxes[:, 3], width, size).transpose(0, 2, 1)
    down = weights(boxes[:, 0], boxes[:, 2], height, size)[:, None]
    rows = images.transpose(0, 3, 1, 2).astype(np.float32).reshape(count, channels * height, width)
    narrow = _rounded(np.matmul(rows, across)).reshape(count, channels, height, size)
    return _rounded(np.matmul(down, narrow)).astype(np.uint8).transpose(0, 2, 3, 1)


def _rounded(sums: np.ndarray) -> np.ndarray:
    return np.floor(sums * np.float32(1 / _ONE) + np.float32(0.5))


def weights(start: np.ndarray, length: np.ndarray, pixels: int, size: int) -> np.ndarray:
    """How much of each pixel goes into each of `size` outputs, in units of 2^-14: rows that sum to 2^14 exactly.

    Shapes: start and length (B,) -> float32 (B, size, pixels).
    """
    start, length = start[:, None, None].astype(np.float64), length[:, None, None].astype(np.float64)
    scale = length / size
    reach = np.maximum(scale, 1.0)
    centre = (np.arange(size)[:, None] + 0.5) * scale + start
    pixel = np.arange(pixels) + 0.5
    share = np.maximum(1 - np.abs(pixel - centre) / reach, 0) * ((pixel > start) & (pixel < start + length))
    units = np.rint(share / share.sum(-1, keepdims=True) * _ONE)
    largest = units.argmax(-1)[..., None]
    missing = _ONE - units.sum(-1, keepdims=True)
    np.put_along_axis(units, largest, np.take_along_axis(units, largest, -1) + missing, -1)
    return units.astype(np.float32)
