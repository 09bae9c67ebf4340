"""Views: what of an image the network sees, in training and in evaluation.

A view works on a whole batch of uint8 images, and what it does to a sample follows from (seed, epoch, sample) alone.
Pixels stay uint8 up to the device. The words of `data.augment`:

- none: the whole image, resized;
- crop: the same, shifted by up to size // 8 pixels over a reflected border;
- flip: the same, mirrored left to right for every second sample;
- crop_flip: both;
- inception: a random box of 5 to 100 % of the area and aspect 3/4 to 4/3, resized, and the flip (the paper's);
- randaugment: inception, then timm's RandAugment.

In evaluation: resize (the whole image, no crop) or crop (the square in the middle, 7/8 of the shorter side).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, get_args

import numpy as np

from vitexp.data import boxes
from vitexp.data.keyed import key, uniforms
from vitexp.data.photo import File, decode_boxes, image_sizes
from vitexp.data.rand_augment import rand_augmented
from vitexp.data.resample import resize_boxes

Augment = Literal["none", "crop", "flip", "crop_flip", "inception", "randaugment"]
EvalKind = Literal["resize", "crop"]
_GATHER_PIXELS = 64 * 64  # up to here one gather for the batch, by a table of at most 19 MB of all moves there are
_VIEW = 0x56494557  # tells these draws from all others of the same seed and epoch
__all__ = ["Augment", "EvalKind", "File", "View", "eval_view", "train_view"]


class View(Protocol):
    """From stored images to uint8 (B, size, size, 3), by the epoch and the ids of the samples."""

    @property
    def size(self) -> int:
        """Height and width of what comes out."""

    def from_pixels(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Shapes: uint8 (B, H, W, 3), samples (B,) -> uint8 (B, size, size, 3)."""

    def from_files(self, files: Sequence[File], epoch: int, samples: np.ndarray) -> np.ndarray:
        """Decodes too, and no more than it needs."""


def train_view(augment: Augment, size: int, seed: int) -> View:
    """The view behind a word of `data.augment`."""
    if augment not in get_args(Augment):
        raise ValueError(f"augment {augment!r} is none of {', '.join(get_args(Augment))}")
    if augment in ("inception", "randaugment"):
        return InceptionView(size, seed, further=augment == "randaugment")
    if "crop" in augment and size < 8:
        raise ValueError(f"augment {augment!r}: crop has no effect on images of {size} pixels; use none or flip")
    return ShiftView(size, seed, shift=size // 8 if "crop" in augment else 0, flip="flip" in augment)


def eval_view(kind: EvalKind, size: int) -> View:
    """The view for validation, test and features: nothing random."""
    if kind not in get_args(EvalKind):
        raise ValueError(f"the evaluation view {kind!r} is none of {', '.join(get_args(EvalKind))}")
    return EvalView(size, centre=kind == "crop")


@dataclass(frozen=True)
class EvalView:
    """The whole image or its centre, resized."""

    size: int
    centre: bool = False

    def from_pixels(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Returns `images` itself where there is nothing to do."""
        count, height, width, _ = images.shape
        if height == width == self.size and not self.centre:
            return images
        return resize_boxes(images, self._boxes(np.full(count, height), np.full(count, width)), self.size)

    def from_files(self, files: Sequence[File], epoch: int, samples: np.ndarray) -> np.ndarray:
        """Decodes and resizes."""
        return decode_boxes(files, self._boxes(*image_sizes(files)), self.size)

    def _boxes(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        return boxes.centre_boxes(heights, widths) if self.centre else boxes.whole_boxes(heights, widths)


@dataclass(frozen=True)
class ShiftView:
    """The whole image, shifted over a reflected border and mirrored, each where asked for."""

    size: int
    seed: int
    shift: int
    flip: bool

    def from_pixels(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Resizes to `size` first, where it must."""
        images = EvalView(self.size).from_pixels(images, epoch, samples)
        if not self.shift and not self.flip:
            return images
        draws = uniforms(key(self.seed, epoch, _VIEW), samples, 3)
        shifts = np.floor(draws[:, :2] * (2 * self.shift + 1)).astype(np.int64) - self.shift
        return moved(images, shifts, (draws[:, 2] < 0.5) & self.flip)

    def from_files(self, files: Sequence[File], epoch: int, samples: np.ndarray) -> np.ndarray:
        """Decodes, resizes, shifts."""
        return self.from_pixels(EvalView(self.size).from_files(files, epoch, samples), epoch, samples)


@dataclass(frozen=True)
class InceptionView:
    """A random box, resized, and the flip; further, RandAugment."""

    size: int
    seed: int
    further: bool = False

    def from_pixels(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Shapes: uint8 (B, H, W, 3) -> (B, size, size, 3)."""
        count, height, width, _ = images.shape
        draws = uniforms(key(self.seed, epoch, _VIEW), samples, boxes.DRAWS + 1)
        parts = boxes.inception_boxes(draws, np.full(count, height), np.full(count, width))
        seen = mirrored(resize_boxes(images, parts, self.size), draws[:, -1] < 0.5)
        return self._further(seen, epoch, samples)

    def from_files(self, files: Sequence[File], epoch: int, samples: np.ndarray) -> np.ndarray:
        """Decodes no more than it needs."""
        draws = uniforms(key(self.seed, epoch, _VIEW), samples, boxes.DRAWS + 1)
        parts = boxes.inception_boxes(draws, *image_sizes(files))
        return self._further(decode_boxes(files, parts, self.size, draws[:, -1] < 0.5), epoch, samples)

    def _further(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        return rand_augmented(images, self.seed, epoch, samples) if self.further else images


def moved(images: np.ndarray, shifts: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Each image moved up and left by its shift, what is missing reflected at the edge, then mirrored where `flips`.

    Shapes: uint8 (B, H, W, 3), shifts (B, 2), flips (B,) -> (B, H, W, 3).
    """
    count, height, width, _ = images.shape
    if height * width > _GATHER_PIXELS:
        rows, columns = _sources(height, width, shifts, flips)
        return np.stack([image[r][:, c] for image, r, c in zip(images, rows, columns, strict=True)])
    reach = int(np.abs(shifts).max(initial=0))
    moves = ((shifts[:, 0] + reach) * (2 * reach + 1) + shifts[:, 1] + reach) * 2 + flips
    places = _places(height, width, reach)[moves] + (np.arange(count) * (height * width))[:, None]
    return np.take(images.reshape(-1, 3), places, axis=0).reshape(images.shape)


@lru_cache(maxsize=8)
def _places(height: int, width: int, reach: int) -> np.ndarray:
    """Where each pixel of an image comes from, for every move of up to `reach`: (moves, height * width)."""
    steps = np.arange(-reach, reach + 1)
    down, right, flips = (grid.ravel() for grid in np.meshgrid(steps, steps, [False, True], indexing="ij"))
    rows, columns = _sources(height, width, np.stack([down, right], axis=1), flips)
    return (rows[:, :, None] * width + columns[:, None, :]).reshape(len(rows), -1)


def _sources(height: int, width: int, shifts: np.ndarray, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns that each moved image is made of. Shapes: (B, height), (B, width)."""
    columns = np.where(flips[:, None], np.arange(width)[::-1], np.arange(width))
    return _reflected(shifts[:, :1] + np.arange(height), height), _reflected(shifts[:, 1:] + columns, width)


def _reflected(places: np.ndarray, length: int) -> np.ndarray:
    """Places outside 0..length-1 mirrored at the edge pixel, which is not repeated."""
    places = np.abs(places)
    return np.where(places >= length, 2 * (length - 1) - places, places)


def mirrored(images: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Mirrors the images where `flips`, in place."""
    images[flips] = images[flips][:, :, ::-1]
    return images
