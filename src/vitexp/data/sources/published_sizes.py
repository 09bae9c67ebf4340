"""The published sizes of well-known sets, and data that know such a size alone: what a run costs without its shards.

Sources: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015 (ILSVRC2012; its validation
images are the test split here); Ridnik et al., "ImageNet-21K Pretraining for the Masses", 2021 (the whole release);
Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 4.1 (303M images of JFT), and the 18,291 classes of
Google's uncertainty-baselines; Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; Zhai et al.,
"A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark", 2019 (VTAB-1k: 1,000
training images a task).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitexp.data.module import ShardData
from vitexp.data.opened import OpenedSet, size_of
from vitexp.data.read.fetch import is_url


class Size(NamedTuple):
    """Images and classes of a set, and the side of its images where they are all squares of one size."""

    train: int
    test: int
    classes: int
    side: int | None = None


_VTAB = {
    "caltech101": 102, "cifar100": 100, "dtd": 47, "flowers102": 102, "pets": 37, "sun397": 397, "svhn": 10,
    "camelyon": 2, "eurosat": 10, "resisc45": 45, "retinopathy": 5,
    "clevr-count": 8, "clevr-dist": 6, "dmlab": 6, "dspr-loc": 16, "dspr-ori": 16, "kitti-dist": 4, "snorb-azim": 18,
    "snorb-elev": 9,
}  # fmt: skip
"""Classes of each task. All have test images; 1,000 stand for them, on which no cost of training depends."""
SIZES = {
    "imagenet": Size(1_281_167, 50_000, 1000),
    "imagenet21k": Size(14_197_122, 0, 21_841),
    "jft300m": Size(303_000_000, 0, 18_291),
    "cifar10": Size(50_000, 10_000, 10, 32),
    "cifar100": Size(50_000, 10_000, 100, 32),
} | {f"vtab-{task}": Size(1000, 1000, classes) for task, classes in _VTAB.items()}
"""By the last part of `data.shards`."""


class PublishedData(ShardData):
    """ShardData that, where its directory is missing and its name known, has the published counts and no images.

    A plan made with it has the right steps and costs; its fingerprints stand for no data, and nothing can be trained.
    """

    def _open(self) -> OpenedSet:
        directory = Path(self.shards)
        if is_url(self.shards) or "/" not in self.shards or directory.exists():
            return super()._open()
        if directory.name in SIZES:
            return self._sized(directory.name, SIZES[directory.name])
        try:
            return super()._open()
        except ValueError as error:
            raise ValueError(
                f"{error}; without shards, the costs are known only of sets named {', '.join(SIZES)}"
            ) from error

    def _sized(self, name: str, size: Size) -> OpenedSet:
        val = self._subset.held_out(size.train)
        train = self._subset.wanted(size.train - val, size.classes)
        counts = {"train": train, "val": val, "test": size.test}
        return OpenedSet(
            indexes={},
            name=name,
            class_names=(),
            classes=size.classes,
            size=size_of(name, (size.side, size.side) if size.side else None, self.image_size),
            rows={split: np.broadcast_to(np.int64(0), count) for split, count in counts.items()},  # lengths alone
            shards_fingerprint=f"published size of {name}",
            subset_fingerprint=f"{train} of {size.train - val} images, seed {self._subset.seed}",
            published=f"{self.shards} is not here: costed from its published size ({size.train:,} training images, "
            f"{size.classes:,} classes)",
        )
