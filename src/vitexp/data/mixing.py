"""How the images of a batch are mixed with each other.

Mixup and CutMix work on the device, on the two images of a pair. Neighbours in the global batch are a pair, and a pair
stays on one rank, so the mixture does not depend on how many ranks share the batch. Both take the same share of each
other, as in timm's pair mode. Source: Zhang et al. 2018 (mixup), Yun et al. 2019 (CutMix); probability and switch as in
timm, whose defaults are DeiT's.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from vitexp.data.augmentation import PLAIN, Augmentation, Mix
from vitexp.data.order import key, uniforms

_MIX = 0x4D495845  # separates these draws of a seed and epoch from others


class Recipe(NamedTuple):
    """How much each image keeps of itself, and the box that it takes from its partner (empty for mixup).

    Shapes: share float32 (B,), boxes int64 (B, 4) as top, left, bottom, right.
    """

    share: Tensor
    boxes: Tensor


def recipe(
    mix: Mix, samples: np.ndarray, height: int, width: int, seed: int, epoch: int, how: Augmentation = PLAIN
) -> Recipe:
    """The mixture of each image, by its pair's first sample; an image without a partner keeps all of itself."""
    count = len(samples)
    draws = uniforms(key(seed, epoch, _MIX), np.asarray(samples)[0::2], 5)
    cut = draws[:, 0] < {"mixup": 0.0, "cutmix": 1.0, "mixup_cutmix": how.switch_prob}[mix]
    alpha = np.where(cut, how.cutmix_alpha, how.mixup_alpha)
    share = betaincinv(alpha, alpha, draws[:, 1]).astype(np.float32)
    share[draws[:, 4] >= how.mix_prob] = 1  # such a pair is not mixed
    boxes = _cut_boxes(share, draws[:, 2:4], height, width) * cut[:, None]
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
