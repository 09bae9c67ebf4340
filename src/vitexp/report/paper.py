"""The published numbers that stand beside ours, each with what it was measured on.

A study names its table (`study.paper: table8`), and a cell asks for its figure by row and column: in our words where
the paper and we mean the same thing (Table 8), in the paper's names elsewhere. Of the paper's pictures there are no
numbers, only what they say. Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929v2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One printed number in the unit of the paper, with its standard deviation where one is printed."""

    value: float
    sd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """One table or picture of the paper; `metric` is ours that it stands beside, `scale` turns its unit into ours."""

    source: str
    title: str
    caveat: str
    metric: str | None = None
    scale: float = 0.01
    figures: Mapping[tuple[str, str], Figure] = field(default_factory=dict)

    def figure(self, row: str, column: str) -> float | None:
        """The number of a cell in our unit, absent where the paper prints none."""
        found = self.figures.get((row, column))
        return None if found is None else found.value * self.scale


def published(name: str) -> Published:
    """The table or picture of that name.

    Raises: ValueError listing the names.
    """
    if name not in PAPER:
        raise ValueError(f"study.paper is {name!r}; name one of {', '.join(PAPER)}, or leave it out")
    return PAPER[name]


def _figures(block: str) -> dict[tuple[str, str], Figure]:
    """A table typed as in the paper: columns apart by |, the first line names them, – where nothing is printed."""
    header, *lines = [[cell.strip() for cell in line.split("|")] for line in block.strip().splitlines()]
    read: dict[tuple[str, str], Figure] = {}
    for row, *cells in lines:
        assert len(cells) == len(header) - 1, row
        read |= {(row, column): _figure(cell) for column, cell in zip(header[1:], cells, strict=True) if cell != "–"}
    return read


def _figure(cell: str) -> Figure:
    value, _, sd = cell.partition("±")
    return Figure(value=float(value), sd=float(sd) if sd else None)


_TABLE2 = """
data set           | ViT-H/14 JFT | ViT-L/16 JFT | ViT-L/16 I21k | BiT-L R152x4 | Noisy Student EffNet-L2
ImageNet           | 88.55±0.04   | 87.76±0.03   | 85.30±0.02    | 87.54±0.02   | 88.4
ImageNet ReaL      | 90.72±0.05   | 90.54±0.03   | 88.62±0.05    | 90.54        | 90.55
CIFAR-10           | 99.50±0.06   | 99.42±0.03   | 99.15±0.03    | 99.37±0.06   | –
CIFAR-100          | 94.55±0.04   | 93.90±0.05   | 93.25±0.05    | 93.51±0.08   | –
Oxford-IIIT Pets   | 97.56±0.03   | 97.32±0.11   | 94.67±0.15    | 96.62±0.23   | –
Oxford Flowers-102 | 99.68±0.02   | 99.74±0.00   | 99.61±0.02    | 99.63±0.03   | –
VTAB (19 tasks)    | 77.63±0.23   | 76.28±0.46   | 72.72±0.21    | 76.29±1.70   | –
TPUv3-core-days    | 2500         | 680          | 230           | 9900         | 12300
"""

_TABLE3 = """
models, data                      | epochs | base learning rate | weight decay | dropout
ViT-B/{16,32}, JFT-300M           | 7      | 8e-4               | 0.1          | 0
ViT-L/32, JFT-300M                | 7      | 6e-4               | 0.1          | 0
ViT-L/16, JFT-300M                | 7      | 4e-4               | 0.1          | 0
ViT-L/16, JFT-300M, long          | 14     | 4e-4               | 0.1          | 0
ViT-H/14, JFT-300M                | 14     | 3e-4               | 0.1          | 0
R50x{1,2}, JFT-300M               | 7      | 1e-3               | 0.1          | 0
R101x1, JFT-300M                  | 7      | 8e-4               | 0.1          | 0
R152x{1,2}, JFT-300M              | 7      | 6e-4               | 0.1          | 0
R50+ViT-B/{16,32}, JFT-300M       | 7      | 8e-4               | 0.1          | 0
R50+ViT-L/32, JFT-300M            | 7      | 2e-4               | 0.1          | 0
R50+ViT-L/16, JFT-300M            | 7      | 4e-4               | 0.1          | 0
R50+ViT-L/16, JFT-300M, long      | 14     | 4e-4               | 0.1          | 0
ViT-B/{16,32}, ImageNet-21k       | 90     | 1e-3               | 0.03         | 0.1
ViT-L/{16,32}, ImageNet-21k       | 30     | 1e-3               | 0.03         | 0.1
ViT-L/{16,32}, ImageNet-21k, long | 90     | 1e-3               | 0.03         | 0.1
ViT-*, ImageNet                   | 300    | 3e-3               | 0.3          | 0.1
"""

_TABLE4 = """
data set           | steps | rate 1 | rate 2 | rate 3 | rate 4 | held-out share of train
ImageNet           | 20000 | 0.003  | 0.01   | 0.03   | 0.06   | 0.01
CIFAR-100          | 10000 | 0.001  | 0.003  | 0.01   | 0.03   | 0.02
CIFAR-10           | 10000 | 0.001  | 0.003  | 0.01   | 0.03   | 0.02
Oxford-IIIT Pets   | 500   | 0.001  | 0.003  | 0.01   | 0.03   | 0.1
Oxford Flowers-102 | 500   | 0.001  | 0.003  | 0.01   | 0.03   | 0.1
VTAB (19 tasks)    | 2500  | 0.01   | –      | –      | –      | –
"""

_TABLE5 = """
upstream > downstream        | B/16  | B/32  | L/16  | L/32  | H/14
ImageNet > CIFAR-10          | 98.13 | 97.77 | 97.86 | 97.94 | –
ImageNet > CIFAR-100         | 87.13 | 86.31 | 86.35 | 87.07 | –
ImageNet > ImageNet          | 77.91 | 73.38 | 76.53 | 71.16 | –
ImageNet > ImageNet ReaL     | 83.57 | 79.56 | 82.19 | 77.83 | –
ImageNet > Flowers           | 89.49 | 85.43 | 89.66 | 86.36 | –
ImageNet > Pets              | 93.81 | 92.04 | 93.64 | 91.35 | –
ImageNet-21k > CIFAR-10      | 98.95 | 98.79 | 99.16 | 99.13 | 99.27
ImageNet-21k > CIFAR-100     | 91.67 | 91.97 | 93.44 | 93.04 | 93.82
ImageNet-21k > ImageNet      | 83.97 | 81.28 | 85.15 | 80.99 | 85.13
ImageNet-21k > ImageNet ReaL | 88.35 | 86.63 | 88.40 | 85.65 | 88.70
ImageNet-21k > Flowers       | 99.38 | 99.11 | 99.61 | 99.19 | 99.51
ImageNet-21k > Pets          | 94.43 | 93.02 | 94.73 | 93.09 | 94.82
JFT-300M > CIFAR-10          | 99.00 | 98.61 | 99.38 | 99.19 | 99.50
JFT-300M > CIFAR-100         | 91.87 | 90.49 | 94.04 | 92.52 | 94.55
JFT-300M > ImageNet          | 84.15 | 80.73 | 87.12 | 84.37 | 88.04
JFT-300M > ImageNet ReaL     | 88.85 | 86.27 | 89.99 | 88.28 | 90.33
JFT-300M > Flowers           | 99.56 | 99.27 | 99.56 | 99.45 | 99.68
JFT-300M > Pets              | 95.80 | 93.40 | 97.11 | 95.83 | 97.56
"""

_TABLE6 = """
model, epochs        | ImageNet | ImageNet ReaL | CIFAR-10 | CIFAR-100 | Pets  | Flowers | exaFLOPs
ViT-B/32, 7          | 80.73    | 86.27         | 98.61    | 90.49     | 93.40 | 99.27   | 55
ViT-B/16, 7          | 84.15    | 88.85         | 99.00    | 91.87     | 95.80 | 99.56   | 224
ViT-L/32, 7          | 84.37    | 88.28         | 99.19    | 92.52     | 95.83 | 99.45   | 196
ViT-L/16, 7          | 86.30    | 89.43         | 99.38    | 93.46     | 96.81 | 99.66   | 783
ViT-L/16, 14         | 87.12    | 89.99         | 99.38    | 94.04     | 97.11 | 99.56   | 1567
ViT-H/14, 14         | 88.08    | 90.36         | 99.50    | 94.71     | 97.11 | 99.71   | 4262
ResNet50x1, 7        | 77.54    | 84.56         | 97.67    | 86.07     | 91.11 | 94.26   | 50
ResNet50x2, 7        | 82.12    | 87.94         | 98.29    | 89.20     | 93.43 | 97.02   | 199
ResNet101x1, 7       | 80.67    | 87.07         | 98.48    | 89.17     | 94.08 | 95.95   | 96
ResNet152x1, 7       | 81.88    | 87.96         | 98.82    | 90.22     | 94.17 | 96.94   | 141
ResNet152x2, 7       | 84.97    | 89.69         | 99.06    | 92.05     | 95.37 | 98.62   | 563
ResNet152x2, 14      | 85.56    | 89.89         | 99.24    | 91.92     | 95.75 | 98.75   | 1126
ResNet200x3, 14      | 87.22    | 90.15         | 99.34    | 93.53     | 96.32 | 99.04   | 3306
R50x1+ViT-B/32, 7    | 84.90    | 89.15         | 99.01    | 92.24     | 95.75 | 99.46   | 106
R50x1+ViT-B/16, 7    | 85.58    | 89.65         | 99.14    | 92.63     | 96.65 | 99.40   | 274
R50x1+ViT-L/32, 7    | 85.68    | 89.04         | 99.24    | 92.93     | 96.97 | 99.43   | 246
R50x1+ViT-L/16, 7    | 86.60    | 89.72         | 99.18    | 93.64     | 97.03 | 99.40   | 859
R50x1+ViT-L/16, 14   | 87.12    | 89.76         | 99.31    | 93.89     | 97.36 | 99.11   | 1668
"""

_TABLE7 = """
data set  | R50 Adam | R50 SGD | R152x2 Adam | R152x2 SGD
ImageNet  | 77.54    | 78.24   | 84.97       | 84.37
CIFAR-10  | 97.67    | 97.46   | 99.06       | 99.07
CIFAR-100 | 86.07    | 85.17   | 92.05       | 91.06
Pets      | 91.11    | 91.00   | 95.37       | 94.79
Flowers   | 94.26    | 92.06   | 98.62       | 99.32
average   | 89.33    | 88.79   | 94.01       | 93.72
"""

_TABLE8 = """
position | stem    | every   | shared
none     | 0.61382 | –       | –
1d       | 0.64206 | 0.63964 | 0.64292
2d       | 0.64001 | 0.64046 | 0.64022
relative | 0.64032 | –       | –
"""

_TABLE9 = """
task         | ViT-H/14 JFT | ViT-L/16 JFT | ViT-L/16 I21k
Caltech101   | 95.3         | 95.4         | 90.8
CIFAR-100    | 85.5         | 81.9         | 84.1
DTD          | 75.2         | 74.3         | 74.1
Flowers102   | 99.7         | 99.7         | 99.3
Pets         | 97.2         | 96.7         | 92.7
Sun397       | 65.0         | 63.5         | 61.0
SVHN         | 88.9         | 87.4         | 80.9
Camelyon     | 83.3         | 83.6         | 82.5
EuroSAT      | 96.7         | 96.5         | 95.6
Resisc45     | 91.4         | 89.7         | 85.2
Retinopathy  | 76.6         | 77.1         | 75.3
Clevr-Count  | 91.7         | 86.4         | 70.3
Clevr-Dist   | 63.8         | 63.1         | 56.1
DMLab        | 53.1         | 49.7         | 41.9
dSpr-Loc     | 79.4         | 74.5         | 74.7
dSpr-Ori     | 63.3         | 60.5         | 64.9
KITTI-Dist   | 84.5         | 82.2         | 79.9
sNORB-Azim   | 33.2         | 36.2         | 30.5
sNORB-Elev   | 51.2         | 51.1         | 41.7
mean of 19   | 77.6         | 76.3         | 72.7
"""

PAPER = {
    "table2": Published(
        source="Table 2",
        title="Comparison with the state of the art",
        caveat="mean and standard deviation of 3 fine-tuning runs; ImageNet at 512 or 518 pixels with Polyak averaging",
        figures=_figures(_TABLE2),
    ),
    "table3": Published(
        source="Table 3",
        title="Pre-training settings",
        caveat="linear decay, cosine for ImageNet alone; Adam, batch 4096, 10,000 warm-up steps, 224 pixels",
        scale=1.0,
        figures=_figures(_TABLE3),
    ),
    "table4": Published(
        source="Table 4",
        title="Fine-tuning settings",
        caveat="SGD with momentum 0.9, batch 512, cosine decay, no weight decay, 384 pixels; VTAB holds out 200 images",
        scale=1.0,
        figures=_figures(_TABLE4),
    ),
    "table5": Published(
        source="Table 5",
        title="Top-1 accuracy after fine-tuning, by pre-training set",
        caveat="384 pixels, no Polyak averaging; ImageNet > ImageNet is fine-tuned a second time on ImageNet itself",
        metric="test_acc",
        figures=_figures(_TABLE5),
    ),
    "table6": Published(
        source="Table 6",
        title="Models pre-trained on JFT-300M and what they cost",
        caveat="859 exaFLOPs (R50x1+ViT-L/16, 7 epochs) is off the table's pattern, 834; H/14 differs from Table 5",
        metric="test_acc",
        figures=_figures(_TABLE6),
    ),
    "table7": Published(
        source="Table 7",
        title="Adam and SGD in pre-training ResNets",
        caveat="fine-tuned accuracy after 7 epochs of JFT-300M; SGD with the settings of BiT",
        metric="test_acc",
        figures=_figures(_TABLE7),
    ),
    "table8": Published(
        source="Table 8",
        title="Position embeddings",
        caveat="ImageNet 5-shot linear accuracy of ViT-B/16, pre-trained at scale (on what, it does not say)",
        metric="fewshot_5",
        scale=1.0,
        figures=_figures(_TABLE8),
    ),
    "table9": Published(
        source="Table 9",
        title="VTAB-1k by task",
        caveat="1,000 training images a task; the score is the plain mean over 19 tasks",
        metric="test_acc",
        figures=_figures(_TABLE9),
    ),
    "figure4": Published(
        source="Figure 4",
        title="Linear 5-shot accuracy on ImageNet against the number of JFT images",
        caveat="drawn only: of equal cost, ViT-B/32 is far below a ResNet-50 on 9M images, above it from 90M",
    ),
    "figure5": Published(
        source="Figure 5",
        title="Accuracy against pre-training compute",
        caveat="drawn only: ViTs take 2 to 4 times less compute than ResNets for equal accuracy (mean of 5 data sets); "
        "hybrids lead slightly at small compute, and the gap closes as models grow",
    ),
    "figure8": Published(
        source="Figure 8",
        title="Depth, width, MLP width, patch size or all",
        caveat="drawn only: depth helps most, less beyond 16 layers, and width least; smaller patches help too",
    ),
    "figure9": Published(
        source="Figure 9",
        title="Class token and global average pooling",
        caveat="drawn only: at the class token's learning rate (8e-4) pooling is clearly worse, at 3e-4 alike",
    ),
}
