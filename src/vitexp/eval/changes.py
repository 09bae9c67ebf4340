"""Test images changed in ways that keep their class for us: pieces shuffled or blanked, the whole moved or turned.

What happens to an image follows from its number in the split alone, so that every network of a study sees the same
images, whatever the batches. Images are uint8 (B, H, W, 3), samples int64 (B,); what is blanked is black.

Source: Naseer et al. 2021, "Intriguing Properties of Vision Transformers". Their code has one mask or permutation for a
whole batch; ours are drawn for each image. Their salient patches hold a share of the attention of DINO; ours are a
share of the patches, so that random, salient and non-salient drop blank equally much.
"""

import numpy as np
from PIL import Image

from vitexp.data.order import key, uniforms
from vitexp.data.views import resize_boxes, whole_boxes

PURPOSE = 0x524F4255
"""Separates these draws from all others."""
_SHUFFLE, _DROP, _TRANSLATE, _ROTATE = 1, 2, 3, 4
_DIRECTIONS = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
_SMALLEST_PIECE, _MOST_PIECES = 2, 14


def pieces_of(size: int) -> int:
    """Pieces along a side by which images of `size` pixels are blanked: as many as divide it, at most 14 (the 16-pixel
    patches of 224), none smaller than 2 pixels.
    """
    every = range(_MOST_PIECES, 0, -1)
    return next(count for count in every if count == 1 or (size % count == 0 and size // count >= _SMALLEST_PIECE))


def _cut(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pieces row by row: (B, rows * columns, H / rows, W / columns, 3)."""
    count, height, width, channels = images.shape
    if height % rows or width % columns:
        raise ValueError(f"images of {height} x {width} pixels cannot be cut into {rows} x {columns} equal pieces")
    parts = images.reshape(count, rows, height // rows, columns, width // columns, channels).swapaxes(2, 3)
    return parts.reshape(count, rows * columns, height // rows, width // columns, channels)


def _joined(pieces: np.ndarray, rows: int, columns: int) -> np.ndarray:
    count, _, high, wide, channels = pieces.shape
    parts = pieces.reshape(count, rows, columns, high, wide, channels).swapaxes(2, 3)
    return np.ascontiguousarray(parts.reshape(count, rows * high, columns * wide, channels))


def shuffled(images: np.ndarray, samples: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pieces of a grid of rows x columns in an order of each image's own."""
    order = _order(key(PURPOSE, _SHUFFLE, rows, columns), samples, rows * columns)
    pieces = _cut(images, rows, columns)
    return _joined(np.take_along_axis(pieces, order[:, :, None, None, None], 1), rows, columns)


def _order(drawn_by: int, samples: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(uniforms(drawn_by, samples, count), axis=1, kind="stable")


def random_order(samples: np.ndarray, count: int) -> np.ndarray:
    """The order in which the pieces of each image are blanked: int64 (B, count). More blanked is always a superset."""
    return _order(key(PURPOSE, _DROP, count), samples, count)


def piece_sums(values: np.ndarray, side: int) -> np.ndarray:
    """The sums of (B, H, W) over the pieces of a grid of side x side: (B, side * side)."""
    return _cut(values[..., None], side, side).sum(axis=(2, 3, 4), dtype=np.float64)


def blanked(images: np.ndarray, order: np.ndarray, percent: int, side: int) -> np.ndarray:
    """Black in place of the first `percent` of each image's pieces in their order (B, side * side), to the nearest."""
    pieces = _cut(images, side, side).copy()
    gone = order[:, : (order.shape[1] * percent + 50) // 100]
    np.put_along_axis(pieces, gone[:, :, None, None, None], 0, 1)
    return _joined(pieces, side, side)


def translated(images: np.ndarray, samples: np.ndarray, eighths: int) -> np.ndarray:
    """Moved by so many eighths of the side in one of eight directions; black moves in."""
    far = max(1, images.shape[1] * eighths // 8)
    drawn = uniforms(key(PURPOSE, _TRANSLATE), samples, 1)[:, 0]
    around = np.pad(images, ((0, 0), (far, far), (far, far), (0, 0)))
    found = np.empty_like(images)
    for i, (down, right) in enumerate(far * (1 - _DIRECTIONS[np.floor(8 * drawn).astype(int)])):
        found[i] = around[i, down : down + images.shape[1], right : right + images.shape[2]]
    return found


def rotated(images: np.ndarray, samples: np.ndarray, degrees: int) -> np.ndarray:
    """Turned around the middle, to one side or the other, bilinear; the corners are black."""
    left = uniforms(key(PURPOSE, _ROTATE), samples, 1)[:, 0] < 0.5
    turned = np.empty_like(images)
    for i, image in enumerate(images):
        angle = degrees if left[i] else -degrees
        turned[i] = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
    return turned


def shrunk(images: np.ndarray, percent: int) -> np.ndarray:
    """Resized to `percent` of the side, in the middle of black."""
    count, height, width, _ = images.shape
    size = max(1, round(height * percent / 100))
    small = resize_boxes(images, whole_boxes(np.full(count, height), np.full(count, width)), size)
    top, left = (height - size) // 2, (width - size) // 2
    found = np.zeros_like(images)
    found[:, top : top + size, left : left + size] = small
    return found
