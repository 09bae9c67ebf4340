"""The published numbers that stand beside ours, each with what it was measured on.

A study names its table (`study.paper: table8`), and a figure stands beside the arm that has the values it was measured
with. Only tables that a sweep of ours can meet have figures here; of the paper's pictures there is what they show.
Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929v2); Naseer et al., Intriguing
Properties of Vision Transformers, NeurIPS 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True)
class Published:
    """One table or picture of the paper.

    `metric` is our metric that its figures belong to, `keys` the settings of an arm that name a figure, in their order.
    `data` is the data set that an arm must have been measured on; empty where the paper's differences are compared with
    ours across data sets.
    """

    source: str
    caveat: str
    metric: str | None = None
    keys: tuple[str, ...] = ()
    data: str = ""
    figures: Mapping[tuple[str, ...], float] = field(default_factory=dict)

    def figure(self, settings: Mapping[str, Any]) -> float | None:
        """The number of an arm with these settings, absent where the paper prints none."""
        return self.figures.get(tuple(_name(key, settings.get(key)) for key in self.keys))

    @property
    def cited(self) -> str:
        """Where it stands, and what was measured."""
        return f"{self.source}, {self.caveat}"


def published(name: str) -> Published:
    """The table or picture of that name, such as table8.

    Raises: ValueError listing the names.
    """
    if name not in PAPER:
        raise ValueError(f"study.paper is {name!r}; name one of {', '.join(PAPER)}, or leave it out")
    return PAPER[name]


def _name(key: str, value: Any) -> str:
    """A factor as the figures name it; weights by the first part of their file's name, as in weights/jft-B-16.ckpt."""
    return PurePosixPath(str(value)).name.partition("-")[0] if key == "run.init" else str(value)


def _figures(table: Mapping[str, Mapping[str, float]], unit: float) -> dict[tuple[str, ...], float]:
    return {(row, column): cell * unit for row, cells in table.items() for column, cell in cells.items()}


# The rows of Table 5 whose downstream set is ImageNet, by network and upstream set, in per cent.
_TABLE5 = {
    "B/16": {"imagenet": 77.91, "imagenet21k": 83.97, "jft": 84.15},
    "B/32": {"imagenet": 73.38, "imagenet21k": 81.28, "jft": 80.73},
    "L/16": {"imagenet": 76.53, "imagenet21k": 85.15, "jft": 87.12},
    "L/32": {"imagenet": 71.16, "imagenet21k": 80.99, "jft": 84.37},
    "H/14": {"imagenet21k": 85.13, "jft": 88.04},
}
_TABLE8 = {
    "none": {"stem": 0.61382},
    "1d": {"stem": 0.64206, "every": 0.63964, "shared": 0.64292},
    "2d": {"stem": 0.64001, "every": 0.64046, "shared": 0.64022},
    "relative": {"stem": 0.64032},
}
_CAVEATS = {
    "Table 2": "mean and standard deviation of 3 fine-tuning runs; ImageNet at 512 or 518 pixels with Polyak averaging",
    "Table 3": "linear decay, cosine for ImageNet alone; Adam, batch 4096, 10,000 warm-up steps, 224 pixels",
    "Table 4": "SGD with momentum 0.9, batch 512, cosine decay, no weight decay, 384 pixels; VTAB holds out 200 images",
    "Table 5": "384 pixels, no Polyak averaging; ImageNet > ImageNet is fine-tuned a second time on ImageNet itself",
    "Table 6": "859 exaFLOPs (R50x1+ViT-L/16, 7 epochs) is off the table's pattern, 834; H/14 differs from Table 5",
    "Table 7": "fine-tuned accuracy after 7 epochs of JFT-300M; SGD with the settings of BiT",
    "Table 8": "ImageNet 5-shot linear accuracy of ViT-B/16, pre-trained at scale (on what, it does not say)",
    "Table 9": "1,000 training images a task; the score is the plain mean over 19 tasks",
    "Figure 4": "drawn only: of equal cost, ViT-B/32 is far below a ResNet-50 on 9M images, above it from 90M",
    "Figure 5": "drawn only: ViTs take 2 to 4 times less compute than ResNets for equal accuracy (mean of 5 data sets)"
    "; hybrids lead slightly at small compute, and the gap closes as models grow",
    "Figure 8": "drawn only: depth helps most, less beyond 16 layers, and width least; smaller patches help too",
    "Figure 9": "drawn only: at the class token's learning rate (8e-4) pooling is clearly worse, at 3e-4 alike",
    "Naseer 2021": "another paper, of DeiT and ViT beside a ResNet-50 on ImageNet: unlike recipes, one network each",
}
# Metric, keys, data and figures of Published.
_MEASURED: dict[str, tuple[Any, ...]] = {
    "Table 5": ("test_acc", ("model.arch", "run.init"), "imagenet", _figures(_TABLE5, unit=0.01)),
    "Table 8": ("fewshot_5", ("model.pos_embed", "model.pos_at"), "", _figures(_TABLE8, unit=1.0)),
}
PAPER = {
    source.lower().replace(" ", ""): Published(source, caveat, *_MEASURED.get(source, ()))
    for source, caveat in _CAVEATS.items()
}
