"""The tests of `vitexp robustness`: by the words of --test the changes of test images, with all that decides them."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.data.batch import Batch
from vitexp.data.module import ShardData
from vitexp.data.order import draws, key
from vitexp.eval import attacks
from vitexp.eval.attention_maps import readout_attention, watch_attention
from vitexp.eval.changes import (
    PURPOSE,
    blanked,
    piece_sums,
    pieces_of,
    random_order,
    rotated,
    shrunk,
    shuffled,
    translated,
)
from vitexp.eval.corruptions import CONSTANTS, constants_for, corrupted
from vitexp.metrics import CORRUPTIONS
from vitexp.robust import SEVERITIES
from vitexp.tools.inside import anatomy
from vitexp.tools.network import Opened

GRIDS = (2, 4, 8, 14, 16)
LIMITS = (1, 4)
"""Of FGSM and PGD, in 255ths."""
PGD_STEPS = 5
_IMAGES = 64
_OF_BATCHES = ("images", "labels", "samples")
PATCH_PERCENT, PATCH_STEPS, PATCH_IMAGES = 25, 100, 64

Pixels = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""The images uint8 (B, H, W, 3) and their numbers in the split -> the changed images, the same for every network."""
Attack = Callable[[nn.Module, Tensor, Tensor, np.ndarray], Tensor]
"""A network, pixels in 0..1, labels and numbers -> the pixels changed against this network."""


@dataclass(frozen=True)
class Images:
    """The test images of a set that are measured: all, or some that are drawn by their numbers."""

    data: ShardData
    samples: np.ndarray

    @classmethod
    def drawn(cls, data: ShardData, most: int | None) -> "Images":
        """At most so many of them, the same for every network; fewer are a part of more."""
        every = data.samples("test")
        ranks = draws(key(PURPOSE, _IMAGES), every, 1)[:, 0]
        return cls(data, np.sort(every[np.argsort(ranks, kind="stable")[:most]]))

    @cached_property
    def whole(self) -> "Images":
        """All images of the set."""
        return Images.drawn(self.data, None)

    @cached_property
    def order(self) -> str:
        """The fingerprint of which images, in which order."""
        return self.data.order_fingerprint("test", self.samples)

    def batches(self) -> Iterator[Batch]:
        """The images in their order."""
        return iter(self.data.eval_loader("test", self.samples))


@dataclass(frozen=True, kw_only=True)
class Test:
    """One change; `settings` are all that decide it beside the network and the test images."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    change: Pixels | None = None
    attack: Attack | None = None
    attention: bool = False
    """Whether it is about networks with attention alone."""
    images: Images | None = None
    """Other images than the study's own test images."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the tests are made for: the data at the networks' size, and what orders patches by salience."""

    images: Images
    ratios: Sequence[int]
    device: torch.device
    salience: "Callable[[], np.ndarray] | None" = None
    """Gives the salience of each piece of each measured image, (N, side * side)."""
    salience_of: str = ""
    """A digest of where it comes from."""
    shift: Images | None = None

    @property
    def size(self) -> int:
        """Height and width in pixels that the networks take."""
        return self.images.data.size


def _each(start: str, change: Callable[..., np.ndarray], levels: Sequence[Any], **settings: Any) -> Iterator[Test]:
    """A test for each level, which is the last argument of the change."""
    for level in levels:

        def at_level(images: np.ndarray, samples: np.ndarray, level: Any = level) -> np.ndarray:
            return change(images, samples, level)

        yield Test(name=f"{start}_{level}", settings=settings, change=at_level)


def _ratios(wanted: Wanted, word: str, side: int) -> list[int]:
    """The ratios at which some patches are blank and some are not."""
    blank = {ratio: (side * side * ratio + 50) // 100 for ratio in wanted.ratios}
    useless = [f"{word}_{ratio}" for ratio, count in blank.items() if not 0 < count < side * side]
    if useless:
        print(f"note: {', '.join(useless)} left out: none or all of {side * side} patches are blank", file=sys.stderr)
    return [ratio for ratio, count in blank.items() if 0 < count < side * side]


def _shuffle(wanted: Wanted) -> Iterator[Test]:
    for side in (side for side in GRIDS if wanted.size % side == 0 and wanted.size // side >= 2):
        yield Test(name=f"shuffle_{side}x{side}", change=partial(shuffled, rows=side, columns=side))


def _drop(wanted: Wanted) -> Iterator[Test]:
    side = pieces_of(wanted.size)

    def change(images: np.ndarray, samples: np.ndarray, percent: int) -> np.ndarray:
        return blanked(images, random_order(samples, side * side), percent, side)

    return _each("drop", change, _ratios(wanted, "drop", side), side=side)


def _salient(wanted: Wanted) -> Iterator[Test]:
    side, numbers, salience = pieces_of(wanted.size), wanted.images.samples, wanted.salience
    assert salience is not None

    def change(images: np.ndarray, samples: np.ndarray, percent: int, sign: int) -> np.ndarray:
        values = salience()[np.searchsorted(numbers, samples)]
        return blanked(images, np.argsort(sign * values, axis=1, kind="stable"), percent, side)

    for word, sign in (("salient", -1), ("nonsalient", 1)):
        ratios = _ratios(wanted, word, side)
        yield from _each(word, partial(change, sign=sign), ratios, side=side, salience=wanted.salience_of)


def _attended(wanted: Wanted) -> Iterator[Test]:
    size, side = wanted.size, pieces_of(wanted.size)

    def attack(network: nn.Module, pixels: Tensor, _labels: Any, _samples: Any, percent: int) -> Tensor:
        values = F.interpolate(attended(network, 2 * pixels - 1)[:, None], size)[:, 0].cpu().numpy()
        images = pixels.permute(0, 2, 3, 1).cpu().numpy()
        found = blanked(images, np.argsort(-piece_sums(values, side), axis=1, kind="stable"), percent, side)
        return torch.from_numpy(found).permute(0, 3, 1, 2).to(pixels.device)

    for ratio in _ratios(wanted, "attended", side):
        settings = {"side": side}
        yield Test(name=f"attended_{ratio}", settings=settings, attack=partial(attack, percent=ratio), attention=True)


def attended(network: nn.Module, images: Tensor) -> Tensor:
    """What the readout attends to in the last layer, on images in -1..1: (B, rows, columns).

    Raises: NoAttentionError, a ValueError, for a network without attention; ValueError where it is not between all.
    """
    parts = anatomy(Opened(network, images.shape[-1], type(network).__name__))
    axial = parts.grid if parts.axial else None
    layers = watch_attention(network, images, parts.tokens, len(parts.blocks), axial)
    return readout_attention(layers[-1], parts.grid, prefix=parts.prefix, reads_class=parts.reads_class)


def _shifts(_wanted: Wanted) -> Iterator[Test]:
    yield from _each("translate", translated, (1, 2, 3))
    yield from _each("rotate", rotated, (15, 30, 45))
    yield from _each("scale", lambda images, _, percent: shrunk(images, percent), (75, 50))


def _corruptions(wanted: Wanted, ours: bool = False) -> Iterator[Test]:
    size = wanted.size
    if not ours and size not in CONSTANTS:
        raise ValueError(
            f"--test corruptions: ImageNet-C was published for images of {' and '.join(map(str, CONSTANTS))} pixels, "
            f"and these networks take {size}; --test corruptions_ours makes corruptions that are named as ours"
        )
    if ours and size in CONSTANTS:
        raise ValueError(f"--test corruptions_ours: {size} pixels have published constants; give --test corruptions")
    for family in CORRUPTIONS:
        for severity, constant in zip(SEVERITIES, constants_for(size)[family], strict=True):
            # what NumPy draws is that of its version
            settings = {"constant": str(constant), "numpy": np.__version__}
            change = partial(corrupted, family=family, constant=constant)
            yield Test(name=f"{'ours_' * ours}{family}_{severity}", settings=settings, change=change)


def _attacks(_wanted: Wanted) -> Iterator[Test]:
    def fgsm(network: nn.Module, pixels: Tensor, labels: Tensor, _samples: Any, limit: int) -> Tensor:
        return attacks.fgsm(network, pixels, labels, limit / 255)

    def pgd(network: nn.Module, pixels: Tensor, labels: Tensor, samples: np.ndarray, limit: int) -> Tensor:
        return attacks.pgd(network, pixels, labels, limit / 255, PGD_STEPS, samples)

    for limit in LIMITS:
        yield Test(name=f"fgsm_{limit}", attack=partial(fgsm, limit=limit))
        yield Test(name=f"pgd_{limit}", settings={"steps": PGD_STEPS}, attack=partial(pgd, limit=limit))


def _patch(wanted: Wanted) -> Iterator[Test]:
    size, data = wanted.size, wanted.images.data
    side, rows = max(1, size * PATCH_PERCENT // 100), data.samples("train")
    patches: dict[int, Tensor] = {}

    def batches() -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        for step in range(PATCH_STEPS):
            parts = list(data.eval_loader("train", attacks.training_rows(rows, PATCH_IMAGES, step)))
            images, labels, samples = (torch.cat([getattr(one, name) for one in parts]) for name in _OF_BATCHES)
            yield as_pixels(images, wanted.device), labels.to(wanted.device), samples.numpy()

    def attack(network: nn.Module, pixels: Tensor, labels: Tensor, samples: np.ndarray) -> Tensor:
        if id(network) not in patches:
            patches[id(network)] = attacks.train_patch(network, batches(), size, side)
        return attacks.patched(pixels, patches[id(network)], attacks.patch_places(samples, size, side))

    settings = {"side": side, "steps": PATCH_STEPS, "images": PATCH_IMAGES, "rate": attacks.PATCH_RATE}
    yield Test(name=f"patch_{PATCH_PERCENT}", settings=settings, attack=attack)


TESTS: dict[str, Callable[[Wanted], Iterator[Test]]] = {
    "shuffle": _shuffle, "drop": _drop, "salient": _salient, "shifts": _shifts, "corruptions": _corruptions,
    "corruptions_ours": partial(_corruptions, ours=True), "attacks": _attacks, "patch": _patch, "attended": _attended,
}  # fmt: skip
"""By the words of --test."""


def make_tests(words: Sequence[str], wanted: Wanted) -> list[Test]:
    """The tests in their order, the images as they are first. Raises: ValueError for one that this size does not have.

    Without words all that need nothing more are made: corruptions where they are published, salient drop where there is
    a salience, and no patches but the same for every network.
    """
    absent = {"attended", "corruptions_ours", *({"corruptions"} if wanted.size not in CONSTANTS else set())}
    absent |= set() if wanted.salience else {"salient"}
    chosen = words or [word for word in TESTS if word not in absent]
    made = {word: list(TESTS[word](wanted)) for word in dict.fromkeys(chosen)}
    if none := [word for word in words if not made[word]]:
        raise ValueError(f"--test {none[0]}: images of {wanted.size} pixels cannot be changed so; leave it out")
    tests = [Test(name="clean"), *(test for tests in made.values() for test in tests)]
    return tests + ([Test(name=f"data_{wanted.shift.data.name}", images=wanted.shift)] if wanted.shift else [])


def as_pixels(images: Tensor, device: torch.device) -> Tensor:
    """Bytes as floats in 0..1."""
    return images.to(device, torch.float32, memory_format=torch.contiguous_format) / 255


def salience_by_network(network: nn.Module, images: Images, device: torch.device) -> np.ndarray:
    """The salience of the pieces of the images by one network: (N, side * side), in the order of the images."""
    side, parts = pieces_of(images.data.size), []
    for batch in images.batches():
        found = attacks.salience(network, as_pixels(batch.images, device), batch.labels.to(device))
        parts.append(piece_sums(found.cpu().numpy(), side))
    return np.concatenate(parts)


def salience_by_file(path: str, images: Images) -> np.ndarray:
    """The same from a .npy file of one value for each pixel of each test image, (N, H, W), in their order.

    Raises: ValueError for a file that is no such array.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"--salience {path} is no .npy file that can be read ({error})") from error
    data = images.data
    wanted = (data.test_count, data.size, data.size)
    if values.shape != wanted or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise ValueError(
            f"--salience {path} holds {values.dtype} of shape {values.shape}; it takes finite numbers of shape "
            f"{wanted}, one for each pixel of each test image of {data.name}"
        )
    chosen = np.searchsorted(data.samples("test"), images.samples)
    return piece_sums(values[chosen], pieces_of(data.size))


def digest(content: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]
