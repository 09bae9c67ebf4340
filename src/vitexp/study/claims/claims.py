"""What the ViT paper claims about the parts that we ablate, and what a study needs to speak to each claim.

Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929v2).
"""

from dataclasses import dataclass
from typing import Literal

Expected = Literal["lower", "higher", "alike"]
Reading = Literal["values", "hybrid lead", "hybrid fade", "data hunger", "compute saving", "depth over width"]
Unit = Literal["accuracy", "compute"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim.

    `reading` says how a study's arms are compared: by the `pairs` of values of `axis` (the first is expected to be
    lower than, or like, the second), or as `families.py` and `compute_claims.py` do for families of networks. `unit`
    is what is compared: accuracy, or compute, as the natural logarithm of how many times less. `tuned` must be tuned
    in each arm. `published` names the paper's figures, `networks` those that it measured them on, all on JFT-300M.
    """

    name: str
    sentence: str
    source: str
    published: str
    axis: str
    expected: Expected
    needs: str
    reading: Reading = "values"
    unit: Unit = "accuracy"
    pairs: tuple[tuple[str, str], ...] = ()
    tuned: str = ""
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OutOfReach:
    """A claim that no study of ours can touch, and why."""

    sentence: str
    source: str
    reason: str


PAPERS_DATA = "jft300m"

CLAIMS = (
    Claim(
        name="no positions",
        sentence="Without a position embedding accuracy is lower",
        source="Table 8",
        published="table8",
        networks=("B/16",),
        axis="model.pos_embed",
        expected="lower",
        pairs=(("none", "1d"), ("none", "2d"), ("none", "relative")),
        needs="arms with model.pos_embed none beside 1d, 2d or relative",
    ),
    Claim(
        name="kinds alike",
        sentence="1-D, 2-D and relative position embeddings are alike",
        source="Table 8",
        published="table8",
        networks=("B/16",),
        axis="model.pos_embed",
        expected="alike",
        pairs=(("2d", "1d"), ("relative", "1d"), ("relative", "2d")),
        needs="arms with two of model.pos_embed 1d, 2d, relative",
    ),
    Claim(
        name="places alike",
        sentence="Positions added at the stem, in every layer, or in every layer from one table are alike",
        source="Table 8",
        published="table8",
        networks=("B/16",),
        axis="model.pos_at",
        expected="alike",
        pairs=(("every", "stem"), ("shared", "stem"), ("shared", "every")),
        needs="arms with two of model.pos_at stem, every, shared",
    ),
    Claim(
        name="readouts alike",
        sentence="Class token and average pooling are alike, each at its own learning rate",
        source="Figure 9",
        published="figure9",
        networks=("B/16",),
        axis="model.pool",
        expected="alike",
        pairs=(("gap", "cls"),),
        tuned="model.lr",
        needs="arms with model.pool cls and gap, and model.lr under study.tune",
    ),
    Claim(
        name="hybrid lead",
        sentence="At small compute a hybrid is ahead of a plain ViT of equal compute",
        source="Figure 5",
        published="figure5",
        axis="model.arch",
        expected="higher",
        reading="hybrid lead",
        needs="hybrids (model.arch such as R50+B/16) beside plain ViTs that cost as much",
    ),
    Claim(
        name="hybrid fade",
        sentence="The lead of hybrids vanishes with more compute",
        source="Figure 5",
        published="figure5",
        axis="model.arch",
        expected="lower",
        reading="hybrid fade",
        needs="hybrids of two sizes beside plain ViTs that cost as much as each",
    ),
    Claim(
        name="data hunger",
        sentence="On little data a ViT falls further behind a ResNet of equal compute than on much",
        source="Figure 4",
        published="figure4",
        axis="model.arch",
        expected="lower",
        reading="data hunger",
        needs="a ViT and a ResNet (model.arch such as R50x1) of like cost at several data.train_images",
    ),
    Claim(
        name="compute saving",
        sentence="For equal accuracy a ViT takes less compute than a ResNet (the paper: 2 to 4 times less)",
        source="Figure 5",
        published="figure5",
        axis="model.arch",
        expected="higher",
        reading="compute saving",
        unit="compute",
        needs="two or more ViTs and two or more ResNets (model.arch such as R50x1) that reach common accuracies",
    ),
    Claim(
        name="depth over width",
        sentence="For equal accuracy more depth takes less compute than more width",
        source="Figure 8",
        published="figure8",
        axis="model.arch",
        expected="higher",
        reading="depth over width",
        unit="compute",
        needs="one network in numbers (model.arch such as w32d2m64h2/4) with others that differ in d alone, and in w",
    ),
)

OUT_OF_REACH = (
    OutOfReach(
        sentence="Pre-trained on JFT-300M, large ViTs beat the best ResNets at a fraction of the compute",
        source="Tables 2, 5, 6; Figures 3, 5",
        reason="JFT-300M is private: 303 million images; 680 core-days of a TPUv3 for ViT-L/16, 2,500 for ViT-H/14",
    ),
    OutOfReach(
        sentence="Pre-trained on ImageNet-21k, large ViTs are as good as ResNets or better",
        source="Tables 2, 5; Figure 3",
        reason="14 million images for 30 to 90 epochs; 230 core-days of a TPUv3 for ViT-L/16",
    ),
)
