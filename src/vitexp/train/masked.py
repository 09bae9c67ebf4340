"""Masked patch prediction: half of the patches are corrupted, and their colours are predicted from what is around them.

Source: ViT paper, section 4.6 and appendix B.1.2. Chosen here, because the paper is silent: patches are corrupted
before positions are added; an image loses exactly its share, rounded; a colour is three bits for each channel, in
eight equal parts of 0 to 255; every prediction counts alike; the predictor starts at zero, as heads do.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.data.batch import Batch
from vitexp.data.order import key, uniforms
from vitexp.nn.init import Linear, Rule, initialise, normal, zeros
from vitexp.nn.vit import ViT

Target = Literal["masked_mean", "masked_small", "masked_pixels"]

MASKED, MOVED = 0.8, 0.1
"""Of the corrupted patches; the rest stay as they are."""
CELLS = {"masked_mean": 1, "masked_small": 4}
LEVELS = 8
_PURPOSE = 0x4D50504D  # tells these draws from all others of the same seed and epoch


class Corruption(NamedTuple):
    """What happens to the patches of a batch, of which C in each image are corrupted."""

    chosen: Tensor
    """int64 (B, C): the places that are corrupted, in raster order."""
    masked: Tensor
    """bool (B, N): where the mask vector stands."""
    source: Tensor
    """int64 (B, N): the place whose embedding stands here; its own but for a moved patch."""


def corruption(samples: np.ndarray, patches: int, share: float, seed: int, epoch: int) -> Corruption:
    """The corruption of each sample in an epoch: the same in any batch, on any rank, after any resume."""
    draws = uniforms(key(seed, epoch, _PURPOSE), samples, 3 * patches).reshape(-1, 3, patches)
    order, kind, other = draws.transpose(1, 0, 2)
    chosen = np.sort(order.argsort(axis=1)[:, : corrupted(patches, share)], axis=1)
    is_chosen = np.zeros(order.shape, bool)
    np.put_along_axis(is_chosen, chosen, True, axis=1)
    own = np.arange(patches)
    another = (own + 1 + np.floor(other * (patches - 1)).astype(np.int64)) % patches
    moved = is_chosen & (kind >= MASKED) & (kind < MASKED + MOVED)
    return Corruption(
        torch.from_numpy(chosen),
        torch.from_numpy(is_chosen & (kind < MASKED)),
        torch.from_numpy(np.where(moved, another, own)),
    )


def corrupted(patches: int, share: float) -> int:
    """How many patches of an image are corrupted."""
    return int(share * patches + 0.5)


def colours(images: Tensor, grid: tuple[int, int], cells: int) -> Tensor:
    """The mean colour of each cell of each patch as one of 512 classes, red first: by whole numbers, so exact.

    Shapes: (B, 3, rows, columns) in [-1, 1] -> int64 (B, N, cells * cells).
    """
    levels = torch.round(images.float() * 127.5 + 127.5).long()
    inside = cut(levels, (grid[0] * cells, grid[1] * cells))  # each cell as a patch of its own
    size = inside.shape[-1]
    red, green, blue = (inside.sum(-1) * LEVELS // (size * 256)).unbind(-1)
    classes = ((red * LEVELS + green) * LEVELS + blue).unflatten(1, (grid[0], cells, grid[1], cells))
    return classes.transpose(2, 3).flatten(3).flatten(1, 2)


def cut(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images as patches in raster order. Shapes: (B, 3, rows, columns) -> (B, N, 3, values)."""
    patches = images.unflatten(-1, (grid[1], -1)).unflatten(-3, (grid[0], -1))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2)


class MaskedPatches(nn.Module):
    """Corrupts the patch embeddings of a network and predicts what was there, each patch from its own last token.

    Raises: ValueError for a network without patches, or whose patches are too few or too small.
    """

    def __init__(self, network: nn.Module, target: Target, share: float, seed: int) -> None:
        super().__init__()
        if not isinstance(network, ViT):
            raise ValueError(f"model.objective {target} needs patches, which a {type(network).__name__} has not")
        if network.config.patch_dropout:
            raise ValueError(f"model.objective {target} needs every patch; leave model.patch_dropout out")
        self.target, self.share, self.seed = target, share, seed
        self.grid, self.prefix = network.layout.grid, network.layout.prefix
        self.patch = tuple(size // count for size, count in zip(network.stem.image_size, self.grid, strict=True))
        self._check()
        width, values = network.layout.width, 3 * self.patch[0] * self.patch[1]
        self.mask = nn.Parameter(torch.empty(width))
        outputs = values if target == "masked_pixels" else CELLS[target] ** 2 * LEVELS**3
        self.predict = Linear(width, outputs, weight=zeros)
        self.init_rules: dict[str, Rule] = {"mask": normal(0.02)}
        initialise(self)

    def forward(self, network: ViT, batch: Batch, epoch: int) -> tuple[Tensor, Tensor | None]:
        """One loss per image, and the share of colours that were right where there are any. Shapes: (B), (B)."""
        device = batch.images.device  # the numbers of the samples are on the host
        how = corruption(batch.samples.numpy(), self.grid[0] * self.grid[1], self.share, self.seed, epoch)
        pinned = (part.pin_memory() if device.type == "cuda" else part for part in how)
        how = Corruption(*(part.to(device, non_blocking=True) for part in pinned))
        tokens = self.encode(network, batch.images, how)
        predicted = self.predict(_at(tokens, how.chosen)).float()
        if self.target == "masked_pixels":
            wanted = _at(cut(batch.images.float(), self.grid).flatten(2), how.chosen)
            return (predicted - wanted).square().mean((1, 2)), None
        wanted = _at(colours(batch.images, self.grid, CELLS[self.target]), how.chosen)
        predicted = predicted.unflatten(-1, (-1, LEVELS**3))
        losses = F.cross_entropy(predicted.flatten(0, 2), wanted.flatten(), reduction="none").view(wanted.shape)
        return losses.mean((1, 2)), (predicted.argmax(-1) == wanted).float().mean((1, 2))

    def encode(self, network: ViT, images: Tensor, how: Corruption) -> Tensor:
        """The normed last tokens of the patches of corrupted images. Shapes: (B, 3, rows, columns) -> (B, N, D)."""
        patches = _at(network.stem(images), how.source)
        patches = torch.where(how.masked[..., None], self.mask.to(patches.dtype), patches)
        tokens: Tensor = network.norm(network.encode_patches(patches))
        return tokens[:, self.prefix :]

    def _check(self) -> None:
        patches = self.grid[0] * self.grid[1]
        if patches < 2 or not 1 <= corrupted(patches, self.share) <= patches:
            raise ValueError(
                f"model.masked_share {self.share} of {patches} patches leaves nothing to predict, or no other patch; "
                "give a share above 0 and up to 1, and an arch with smaller patches"
            )
        cells, (rows, columns) = CELLS.get(self.target, 1), self.patch
        if rows % cells or columns % cells:
            raise ValueError(
                f"model.objective {self.target} cuts a patch in {cells}x{cells} cells, and {rows}x{columns} pixels "
                "cannot be; choose another arch or objective"
            )


def unused(name: str, network: nn.Module) -> bool:
    """Whether a parameter of the network has no part in the prediction of patches: what only classes are read by."""
    assert isinstance(network, ViT), "patches are predicted by no other network"
    only_read = ("head.", "pre_logits.") if network.pool.prefix else ("head.", "pre_logits.", "pool.")
    return name.startswith(only_read)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """The values at the places of each image. Shapes: (B, N, D), (B, M) -> (B, M, D)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
