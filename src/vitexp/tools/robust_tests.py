"""The tests of `vitexp robustness`: by the words of --test the changes of test images, with all that decides them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitexp.data.batch import Batch
from vitexp.data.module import ShardData
from vitexp.data.order import draws, key
from vitexp.eval import attacks
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

RATIOS = (10, 30, 50, 70, 90)
GRIDS = (2, 4, 8, 14, 16)
LIMITS = (1, 4)
"""Of FGSM and PGD, in 255ths."""
PGD_STEPS = 5
_IMAGES = 64
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

    @property
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


def _shuffle(wanted: Wanted) -> Iterator[Test]:
    size = wanted.size
    for side in (side for side in GRIDS if size % side == 0 and size // side >= 2):
        change = partial(shuffled, rows=side, columns=side)
        yield Test(name=f"shuffle_{side}x{side}", change=change)


def _drop(wanted: Wanted) -> Iterator[Test]:
    side = pieces_of(wanted.size)

    def change(images: np.ndarray, samples: np.ndarray, percent: int) -> np.ndarray:
        return blanked(images, random_order(samples, side * side), percent, side)

    for ratio in wanted.ratios:
        yield Test(name=f"drop_{ratio}", settings={"side": side}, change=partial(change, percent=ratio))


def _salient(wanted: Wanted) -> Iterator[Test]:
    side, numbers = pieces_of(wanted.size), wanted.images.samples
    assert wanted.salience is not None

    def change(images: np.ndarray, samples: np.ndarray, percent: int, sign: int) -> np.ndarray:
        assert wanted.salience is not None
        values = wanted.salience()[np.searchsorted(numbers, samples)]
        return blanked(images, np.argsort(sign * values, axis=1, kind="stable"), percent, side)

    for word, sign in (("salient", -1), ("nonsalient", 1)):
        for ratio in wanted.ratios:
            settings = {"side": side, "salience": wanted.salience_of}
            yield Test(name=f"{word}_{ratio}", settings=settings, change=partial(change, percent=ratio, sign=sign))


def _shifts(wanted: Wanted) -> Iterator[Test]:
    for eighths in (1, 2, 3):
        yield Test(name=f"translate_{eighths}", change=partial(translated, eighths=eighths))
    for degrees in (15, 30, 45):
        yield Test(name=f"rotate_{degrees}", change=partial(rotated, degrees=degrees))
    for percent in (75, 50):

        def change(images: np.ndarray, samples: np.ndarray, percent: int = percent) -> np.ndarray:
            return shrunk(images, percent)

        yield Test(name=f"scale_{percent}", change=change)


def _corruptions(wanted: Wanted) -> Iterator[Test]:
    size = wanted.size
    if size not in CONSTANTS:
        raise ValueError(
            f"--test corruptions: ImageNet-C was published for images of {' and '.join(map(str, CONSTANTS))} pixels, "
            f"and these networks take {size}; --test corruptions_ours makes corruptions that are named as ours"
        )
    yield from _corrupted("", CONSTANTS[size])


def _corruptions_ours(wanted: Wanted) -> Iterator[Test]:
    if (size := wanted.size) in CONSTANTS:
        raise ValueError(f"--test corruptions_ours: {size} pixels have published constants; give --test corruptions")
    yield from _corrupted("ours_", constants_for(size))


def _corrupted(whose: str, constants: Mapping[str, tuple[Any, ...]]) -> Iterator[Test]:
    for family in CORRUPTIONS:
        for severity in SEVERITIES:
            constant = constants[family][severity - 1]
            # the draws of NumPy and the bytes of Pillow are those of their versions
            settings = {"constant": str(constant), "numpy": np.__version__}
            change = partial(corrupted, family=family, constant=constant)
            yield Test(name=f"{whose}{family}_{severity}", settings=settings, change=change)


def _attacks(wanted: Wanted) -> Iterator[Test]:
    def fgsm(network: nn.Module, pixels: Tensor, labels: Tensor, samples: np.ndarray, limit: int) -> Tensor:
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
            (batch,) = data.eval_loader("train", attacks.training_rows(rows, PATCH_IMAGES, step))
            yield as_pixels(batch.images, wanted.device), batch.labels.to(wanted.device), batch.samples.numpy()

    def attack(network: nn.Module, pixels: Tensor, labels: Tensor, samples: np.ndarray) -> Tensor:
        if id(network) not in patches:
            patches[id(network)] = attacks.train_patch(network, batches(), size, side)
        return attacks.patched(pixels, patches[id(network)], attacks.patch_places(samples, size, side))

    settings = {"side": side, "steps": PATCH_STEPS, "images": PATCH_IMAGES, "rate": attacks.PATCH_RATE}
    yield Test(name=f"patch_{PATCH_PERCENT}", settings=settings, attack=attack)


TESTS: dict[str, Callable[[Wanted], Iterator[Test]]] = {
    "shuffle": _shuffle, "drop": _drop, "salient": _salient, "shifts": _shifts, "corruptions": _corruptions,
    "corruptions_ours": _corruptions_ours, "attacks": _attacks, "patch": _patch,
}  # fmt: skip
"""By the words of --test."""


def make_tests(words: Sequence[str], wanted: Wanted) -> list[Test]:
    """The tests in their order, the images as they are first. Raises: ValueError for one that this size does not have.

    Without words all that need nothing more are made: corruptions where they are published, salient drop where there is
    a salience.
    """
    absent = {"corruptions_ours", *({"corruptions"} if wanted.size not in CONSTANTS else set())}
    absent |= set() if wanted.salience else {"salient"}
    chosen = words or [word for word in TESTS if word not in absent]
    tests = [Test(name="clean"), *(test for word in dict.fromkeys(chosen) for test in TESTS[word](wanted))]
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
