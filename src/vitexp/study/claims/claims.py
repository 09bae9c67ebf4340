"""What the ViT paper claims about the parts that we ablate, and what a study needs to test each claim.

Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929v2); the claims on changed images
are those of Naseer et al., Intriguing Properties of Vision Transformers, NeurIPS 2021.
"""

from typing import NamedTuple

from vitexp.metrics import CORRUPTIONS
from vitexp.study.claims import findings as find
from vitexp.study.claims.findings import Claim


class OutOfReach(NamedTuple):
    """A claim that no study of ours can touch, and why."""

    sentence: str
    source: str
    reason: str


PAPERS_DATA = "jft300m"
PAPERS_NETWORK = "B/16"
"""What Table 8 and Figure 9 were measured with; the other figures are of many networks."""

SHIFTS = ("translate_", "rotate_", "scale_", "data_", *CORRUPTIONS, *(f"ours_{name}" for name in CORRUPTIONS))

CLAIMS = (
    Claim(
        "no positions", "Without a position embedding accuracy is lower", "Table 8", "lower", find.by_values,
        needs="arms with model.pos_embed none beside 1d, 2d or relative",
        axis="model.pos_embed", pairs=(("none", "1d"), ("none", "2d"), ("none", "relative")),
    ),
    Claim(
        "kinds alike", "1-D, 2-D and relative position embeddings are alike", "Table 8", "alike", find.by_values,
        needs="arms with two of model.pos_embed 1d, 2d, relative",
        axis="model.pos_embed", pairs=(("2d", "1d"), ("relative", "1d"), ("relative", "2d")),
    ),
    Claim(
        "places alike", "Positions added at the stem, in every layer, or in every layer from one table are alike",
        "Table 8", "alike", find.by_values, needs="arms with two of model.pos_at stem, every, shared",
        axis="model.pos_at", pairs=(("every", "stem"), ("shared", "stem"), ("shared", "every")),
    ),
    Claim(
        "readouts alike", "Class token and average pooling are alike, each at its own learning rate",
        "Figure 9", "alike", find.by_values, needs="arms with model.pool cls and gap, and model.lr under study.tune",
        axis="model.pool", pairs=(("gap", "cls"),), tuned="model.lr",
    ),
    Claim(
        "hybrid lead", "At small compute a hybrid is ahead of a plain ViT of equal compute",
        "Figure 5", "higher", find.hybrid_lead,
        needs="hybrids (model.arch such as R50+B/16) beside plain ViTs that cost as much",
    ),
    Claim(
        "hybrid fade", "The lead of hybrids vanishes with more compute", "Figure 5", "lower", find.hybrid_fade,
        needs="hybrids of two sizes beside plain ViTs that cost as much as each",
    ),
    Claim(
        "data hunger", "On little data a ViT falls further behind a ResNet of equal compute than on much",
        "Figure 4", "lower", find.data_hunger,
        needs="a ViT and a ResNet (model.arch such as R50x1) of like cost at several data.train_images",
    ),
    Claim(
        "compute saving", "For equal accuracy a ViT takes less compute than a ResNet (the paper: 2 to 4 times less)",
        "Figure 5", "higher", find.compute_saving, unit="compute",
        needs="two or more ViTs and two or more ResNets (model.arch such as R50x1) that reach common accuracies",
    ),
    Claim(
        "depth over width", "For equal accuracy more depth takes less compute than more width",
        "Figure 8", "higher", find.depth_over_width, unit="compute",
        needs="one network in numbers (model.arch such as w32d2m64h2/4) with others that differ in d alone, and in w",
    ),
    *(
        Claim(
            name, f"A ViT stands {what} better than a ResNet of like compute", "Naseer 2021", "higher",
            find.stands_better, changes=changes,
            needs="a ViT and a ResNet (model.arch such as R50x1) of like cost, `vitexp robustness` on their runs, and "
            f"study.metrics with test_acc and robust/ tests such as {changes[0]}{level}",
        )
        for name, what, changes, level in (
            ("occlusion", "blanked patches", ("drop_", "salient_", "nonsalient_"), "50"),
            ("distribution shift", "shifted and corrupted images", SHIFTS, "2"),
            ("adversarial patch", "an adversarial patch", ("patch_",), "25"),
            ("shuffled patches", "shuffled patches", ("shuffle_",), "2x2"),
        )
    ),
)  # fmt: skip

OUT_OF_REACH = (
    OutOfReach(
        "Pre-trained on JFT-300M, large ViTs beat the best ResNets at a fraction of the compute",
        source="Tables 2, 5, 6; Figures 3, 5",
        reason="JFT-300M is private: 303 million images; 680 core-days of a TPUv3 for ViT-L/16, 2,500 for ViT-H/14",
    ),
    OutOfReach(
        "Pre-trained on ImageNet-21k, large ViTs are as good as ResNets or better",
        source="Tables 2, 5; Figure 3",
        reason="14 million images for 30 to 90 epochs; 230 core-days of a TPUv3 for ViT-L/16",
    ),
)
