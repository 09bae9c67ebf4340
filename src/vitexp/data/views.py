"""What the network sees of an image, in training and in evaluation, and how the images of a batch are mixed.

A view works on a whole batch of uint8 images, and what it does to a sample follows from (seed, epoch, sample) alone.
Pixels stay uint8 up to the device. The values of `data.augment`:

- none: the whole image, resized;
- crop: the same, shifted by up to size // 8 pixels over a reflected border;
- flip: the same, mirrored left to right for every second sample;
- crop_flip: both;
- inception: a random box of 5 to 100 % of the area and aspect 3/4 to 4/3, resized, and the flip (the paper's);
- randaugment: inception, then timm's RandAugment.

In evaluation: resize (the whole image, no crop) or crop (the square in the middle, 7/8 of the shorter side).

Mixup and CutMix work on the device, on the two images of a pair. Neighbours in the global batch are a pair, and a pair
stays on one rank, so the mixture does not depend on how many ranks share the batch. Both take the same share of each
other, as in timm's pair mode. Source: Zhang et al. 2018 (mixup), Yun et al. 2019 (CutMix); shares and the even choice
between both as in DeiT.
"""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.special import betaincinv
from torch import Tensor

from vitexp.data.order import EVALUATION, draws, key, uniforms
from vitexp.data.read.decode import File, decode_boxes, image_sizes

AREA = (0.05, 1.0)  # of the image; the paper's pre-processing, "Inception crop" with 5 to 100 %
ASPECT = (3 / 4, 4 / 3)  # width to height
TRIES = 10
DRAWS = 2 + 2 * TRIES
CENTRE = 7 / 8  # 224 of 256: the part of the shorter side that a centre crop keeps
POLICY = "rand-m9-n2-mstd0.5-inc1"  # two operations of magnitude 9 +- 0.5, each done every second time (DeiT's choice)
Augment = Literal["none", "crop", "flip", "crop_flip", "inception", "randaugment"]
EvalKind = Literal["resize", "crop"]
Mix = Literal["none", "mixup", "cutmix", "mixup_cutmix"]
MIXUP_ALPHA, CUTMIX_ALPHA = 0.8, 1.0
_INCEPTION = ("inception", "randaugment")
_ONE = 2.0**14
_GREY = (128, 128, 128)  # what moves in from outside
_GATHERED = 64  # images moved at a time, whose places take 26 MB at 224 pixels
_VIEW, _RANDAUGMENT, _MIX = 0x56494557, 0x52414E44, 0x4D495845  # separate the draws of one seed and epoch
_lock = threading.Lock()


def inception_boxes(draws: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Random boxes: area uniform, aspect log-uniform, the first of ten tries that lies inside the image.

    Where none does, the box is the largest centred one whose aspect is allowed.
    Shapes: draws (B, DRAWS) in [0, 1), heights and widths (B,) -> int64 (B, 4).
    Source: Szegedy et al. 2015 in the form of torchvision's RandomResizedCrop (TensorFlow's op, which big_vision uses,
    draws the height uniformly instead of the area).
    """
    h, w = heights[:, None].astype(np.float64), widths[:, None].astype(np.float64)
    area = (AREA[0] + (AREA[1] - AREA[0]) * draws[:, 2 : 2 + TRIES]) * h * w
    low, high = np.log(ASPECT)
    aspect = np.exp(low + (high - low) * draws[:, 2 + TRIES : DRAWS])
    tall, wide = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (tall >= 1) & (wide >= 1) & (tall <= h) & (wide <= w)
    first = np.argmax(fits, axis=1)[:, None]
    tall, wide = np.take_along_axis(tall, first, 1), np.take_along_axis(wide, first, 1)
    top, left = np.floor(draws[:, 0:1] * (h - tall + 1)), np.floor(draws[:, 1:2] * (w - wide + 1))
    boxes = np.hstack([top, left, tall, wide])
    largest = _centred(h, w, np.minimum(h, np.rint(w / ASPECT[0])), np.minimum(w, np.rint(h * ASPECT[1])))
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


def rand_augmented(images: np.ndarray, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """Each image after RandAugment as timm defines it. timm draws from the global generators of Python and NumPy, which
    are seeded for each sample, under a lock, and put back.

    Shapes: uint8 (B, S, S, 3), samples (B,) -> uint8 (B, S, S, 3).
    """
    seeds = draws(key(seed, epoch, _RANDAUGMENT), samples, 2)
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


@dataclass(frozen=True)
class View:
    """What the network sees of images or files: `augment` in training, in the epoch EVALUATION `measured`."""

    size: int
    """Height and width of what comes out."""
    augment: Augment = "none"
    measured: EvalKind = "resize"
    seed: int = 0

    def __post_init__(self) -> None:
        if "crop" in self.augment and self.size < 8:
            raise ValueError(
                f"augment {self.augment!r}: crop has no effect on images of {self.size} pixels; use none or flip"
            )

    def shows_parts(self, epoch: int) -> bool:
        """Whether the network sees parts of the images in an epoch."""
        return self.measured == "crop" if epoch == EVALUATION else self.augment in _INCEPTION

    def from_pixels(self, images: np.ndarray, epoch: int, samples: np.ndarray) -> np.ndarray:
        """`images` themselves where there is nothing to do.

        Shapes: uint8 (B, H, W, 3), samples (B,) -> uint8 (B, size, size, 3).
        """
        count, height, width, _ = images.shape
        plain = self.measured != "crop" if epoch == EVALUATION else self.augment == "none"
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
        return centre_boxes(heights, widths) if epoch == EVALUATION else inception_boxes(draws, heights, widths)

    def _augmented(self, images: np.ndarray, epoch: int, samples: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if epoch == EVALUATION or self.augment == "none":
            return images
        flips = draws[:, -1] < 0.5
        if self.augment in _INCEPTION:
            mirror(images, np.flatnonzero(flips))
            return rand_augmented(images, self.seed, epoch, samples) if self.augment == "randaugment" else images
        reach = self.size // 8 if "crop" in self.augment else 0
        shifts = np.floor(draws[:, :2] * (2 * reach + 1)).astype(np.int64) - reach
        return moved(images, shifts, flips & ("flip" in self.augment))


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


class Recipe(NamedTuple):
    """How much each image keeps of itself, and the box that it takes from its partner (empty for mixup).

    Shapes: share float32 (B,), boxes int64 (B, 4) as top, left, bottom, right.
    """

    share: Tensor
    boxes: Tensor


def recipe(mix: Mix, samples: np.ndarray, height: int, width: int, seed: int, epoch: int) -> Recipe:
    """The mixture of each image, by its pair's first sample; an image without a partner keeps all of itself."""
    count = len(samples)
    draws = uniforms(key(seed, epoch, _MIX), np.asarray(samples)[0::2], 4)
    cut = draws[:, 0] < {"mixup": 0.0, "cutmix": 1.0, "mixup_cutmix": 0.5}[mix]
    alpha = np.where(cut, CUTMIX_ALPHA, MIXUP_ALPHA)
    share = betaincinv(alpha, alpha, draws[:, 1]).astype(np.float32)
    boxes = _cut_boxes(share, draws[:, 2:], height, width) * cut[:, None]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share = np.where(cut, 1 - area / (height * width), share).astype(np.float32)
    share, boxes = np.repeat(share, 2)[:count], np.repeat(boxes, 2, axis=0)[:count]
    if count % 2:
        share[-1], boxes[-1] = 1, 0
    return Recipe(torch.from_numpy(share), torch.from_numpy(boxes))


def _cut_boxes(share: np.ndarray, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """A box of the image's own shape around a random pixel, as large as the partner's share, clipped at the edges."""
    ratio = np.sqrt(1 - share)
    sides = [(size, np.trunc(size * ratio)) for size in (height, width)]
    centres = [np.floor(draws[:, i] * size) for i, (size, _) in enumerate(sides)]
    low = [np.clip(c - side // 2, 0, size) for c, (size, side) in zip(centres, sides, strict=True)]
    high = [np.clip(c + (side + 1) // 2, 0, size) for c, (size, side) in zip(centres, sides, strict=True)]
    return np.stack([*low, *high], axis=1).astype(np.int64)


def partners(items: Tensor) -> Tensor:
    """What each image's partner has: places 2k and 2k + 1 change; a last one alone keeps its own. Shapes: (B, ...)."""
    places = torch.arange(len(items), device=items.device) ^ 1
    return items[torch.where(places < len(items), places, places - 1)]


def mixed(images: Tensor, how: Recipe) -> Tensor:
    """Mixes a batch of float images by a recipe. Shapes: (B, 3, H, W) -> the same."""
    share = how.share.to(images.dtype)[:, None, None, None]
    top, left, bottom, right = how.boxes[:, :, None, None].unbind(1)
    rows = torch.arange(images.shape[2], device=images.device)[None, :, None]
    columns = torch.arange(images.shape[3], device=images.device)[None, None, :]
    inside = ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]
    is_cut = (bottom > top)[:, None]
    others = partners(images)
    weight = torch.where(is_cut, torch.ones_like(share), share)
    return torch.where(inside, others, images * weight + others * (1 - weight))
