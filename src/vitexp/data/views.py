"""What the network sees of an image, in training and in evaluation.

A view works on a whole batch of uint8 images, and what it does to a sample follows from (seed, epoch, sample) alone.
Pixels stay uint8 up to the device. The values of `data.augment`:

- none: the whole image, resized;
- crop: the same, shifted by up to size // 8 pixels, or `crop_padding`, over a reflected border;
- flip: the same, mirrored left to right for every second sample;
- crop_flip: both;
- inception: a random box of 5 to 100 % of the area (`crop_scale`) and aspect 3/4 to 4/3 (`crop_ratio`), resized, and
  the flip (the paper's);
- randaugment: inception, then timm's RandAugment.

Any of them but the last may be followed by a policy of timm's, jittered colours and erased boxes (policy.py).

In evaluation: resize (the whole image, no crop) or crop (the square in the middle, 7/8 of the shorter side).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from vitexp.data import policy
from vitexp.data.augmentation import PLAIN, Augment, Augmentation
from vitexp.data.order import EVALUATION, key, uniforms
from vitexp.data.own_augment import OwnStep, check
from vitexp.data.read.decode import File, decode_boxes, image_sizes

TRIES = 10
DRAWS = 2 + 2 * TRIES
CENTRE = 7 / 8  # 224 of 256: the part of the shorter side that a centre crop keeps
EvalKind = Literal["resize", "crop"]
_INCEPTION = ("inception", "randaugment")
_ONE = 2.0**14
_GATHERED = 64  # images moved at a time, whose places take 26 MB at 224 pixels
_VIEW = 0x56494557  # separates these draws of a seed and epoch from others


def inception_boxes(
    draws: np.ndarray, heights: np.ndarray, widths: np.ndarray, how: Augmentation = PLAIN
) -> np.ndarray:
    """Random boxes: area uniform, aspect log-uniform, the first of ten tries that lies inside the image.

    Where none does, the box is the largest centred one whose aspect is allowed.
    Shapes: draws (B, DRAWS) in [0, 1), heights and widths (B,) -> int64 (B, 4).
    Source: Szegedy et al. 2015 in the form of torchvision's RandomResizedCrop (TensorFlow's op, which big_vision uses,
    draws the height uniformly instead of the area).
    """
    h, w = heights[:, None].astype(np.float64), widths[:, None].astype(np.float64)
    least, most = how.crop_scale
    area = (least + (most - least) * draws[:, 2 : 2 + TRIES]) * h * w
    low, high = np.log(how.crop_ratio)
    aspect = np.exp(low + (high - low) * draws[:, 2 + TRIES : DRAWS])
    tall, wide = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (tall >= 1) & (wide >= 1) & (tall <= h) & (wide <= w)
    first = np.argmax(fits, axis=1)[:, None]
    tall, wide = np.take_along_axis(tall, first, 1), np.take_along_axis(wide, first, 1)
    top, left = np.floor(draws[:, 0:1] * (h - tall + 1)), np.floor(draws[:, 1:2] * (w - wide + 1))
    boxes = np.hstack([top, left, tall, wide])
    narrow, broad = how.crop_ratio
    largest = _centred(h, w, np.minimum(h, np.rint(w / narrow)), np.minimum(w, np.rint(h * broad)))
    return np.where(fits.any(1, keepdims=True), boxes, largest[:, 0]).astype(np.int64)


def whole_boxes(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The whole of each image."""
    return _centred(heights, widths, heights, widths)


def centre_boxes(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The square in the middle, 7/8 of the shorter side: resize to 8/7 of the size and crop, in one step."""
    side = np.maximum(np.rint(np.minimum(heights, widths) * CENTRE).astype(np.int64), 1)
    return _centred(heights, widths, side, side)


def _centred(heights: np.ndarray, widths: np.ndarray, tall: np.ndarray, wide: np.ndarray) -> np.ndarray:
    return np.stack([(heights - tall) // 2, (widths - wide) // 2, tall, wide], axis=-1)


def resize_boxes(images: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Each image's box as a square of `size`; what lies outside the box has no effect.

    Bilinear with antialiasing (a triangle as wide as the reduction) is two products with weight matrices. The weights
    are multiples of 2^-14 and the pixels whole numbers, so every partial sum is exact in float32, whatever its order,
    and no machine rounds it differently.

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


@dataclass(frozen=True)
class View:
    """What the network sees of images or files: `augment` in training, in the epoch EVALUATION `measured`."""

    size: int
    """Height and width of what comes out."""
    augment: Augment = "none"
    measured: EvalKind = "resize"
    seed: int = 0
    how: Augmentation = PLAIN
    """How strongly."""

    def __post_init__(self) -> None:
        padding = self.how.crop_padding
        if isinstance(own := self.how.policy(self.augment), OwnStep):
            check(own, self.size)
        if "crop" in self.augment and self.size < 8 and padding is None:
            raise ValueError(
                f"augment {self.augment!r}: crop has no effect on images of {self.size} pixels; use none or flip"
            )
        if padding is not None and not 0 < padding < self.size:
            raise ValueError(
                f"data.crop_padding is {padding}; images of {self.size} pixels can be padded by 1 to {self.size - 1}"
            )

    @property
    def _policy(self) -> tuple[str | OwnStep, float, float]:
        return self.how.policy(self.augment), self.how.color_jitter, self.how.random_erasing

    def shows_parts(self, epoch: int) -> bool:
        """Whether the network sees parts of the images in an epoch."""
        return self.measured == "crop" if epoch == EVALUATION else self.augment in _INCEPTION

    def from_pixels(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        """`images` themselves where there is nothing to do.

        Shapes: uint8 (B, H, W, 3), samples (B,) -> uint8 (B, size, size, 3).
        """
        count, height, width, _ = images.shape
        plain = self.measured != "crop" if epoch == EVALUATION else self.augment == "none"
        plain = plain and (epoch == EVALUATION or self._policy == ("none", 0, 0))
        if plain and height == width == self.size:
            return images
        draws = self._draws(epoch, samples)
        if self.shows_parts(epoch) or not height == width == self.size:
            boxes = self._boxes(np.full(count, height), np.full(count, width), epoch, draws)
            images = resize_boxes(images, boxes, self.size)
        return self._augmented(images, epoch, samples, draws)

    def from_files(self, files: Sequence[File], epoch: int, samples: np.ndarray) -> np.ndarray:
        """Decodes too, and no more than it needs."""
        draws = self._draws(epoch, samples)
        images = decode_boxes(files, self._boxes(*image_sizes(files), epoch, draws), self.size)
        return self._augmented(images, epoch, samples, draws)

    def _draws(self, epoch: int, samples: np.ndarray) -> np.ndarray:
        """The random numbers of each sample: those of its box or of its shift, and last that of the flip."""
        return uniforms(key(self.seed, epoch, _VIEW), samples, (DRAWS if self.augment in _INCEPTION else 2) + 1)

    def _boxes(self, heights: np.ndarray, widths: np.ndarray, epoch: int, draws: np.ndarray) -> np.ndarray:
        if not self.shows_parts(epoch):
            return whole_boxes(heights, widths)
        if epoch == EVALUATION:
            return centre_boxes(heights, widths)
        return inception_boxes(draws, heights, widths, self.how)

    def _augmented(self, images: np.ndarray, epoch: int, samples: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if epoch == EVALUATION:
            return images
        flips = draws[:, -1] < 0.5
        if self.augment in _INCEPTION:
            mirror(images, np.flatnonzero(flips))
        elif self.augment != "none":
            reach = (self.how.crop_padding or self.size // 8) if "crop" in self.augment else 0
            shifts = np.floor(draws[:, :2] * (2 * reach + 1)).astype(np.int64) - reach
            images = moved(images, shifts, flips & ("flip" in self.augment))
        return policy.applied(images, *self._policy, self.seed, epoch, samples)


def mirror(images: np.ndarray, which: np.ndarray) -> None:
    """Mirrors those of the images in place, by torch: NumPy moves single bytes, which is ten times slower.

    Shapes: uint8 (B, H, W, 3), which (K,).
    """
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    for i in which.tolist():
        planes[i] = planes[i].flip(-1)


def moved(images: np.ndarray, shifts: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Each image moved up and left by its shift, what is missing reflected at the edge, then mirrored where `flips`.

    Shapes: uint8 (B, H, W, 3), shifts (B, 2), flips (B,) -> (B, H, W, 3).
    """
    height, width = images.shape[1:3]
    reach = int(np.abs(shifts).max(initial=0))
    columns = np.where(flips[:, None], np.arange(width)[::-1], np.arange(width))
    columns = np.pad(np.arange(width), reach, "reflect")[reach + shifts[:, 1:] + columns]
    rows = np.pad(np.arange(height), reach, "reflect")[reach + shifts[:, :1] + np.arange(height)]
    results = np.empty_like(images)
    for some in (slice(start, start + _GATHERED) for start in range(0, len(images), _GATHERED)):
        firsts = np.arange(len(images[some]))[:, None, None] * (height * width)
        places = firsts + rows[some, :, None] * width + columns[some, None, :]
        results[some] = np.take(images[some].reshape(-1, 3), places, axis=0)
    return results
