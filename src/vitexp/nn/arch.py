"""Names of architectures, as the papers write them, turned into sizes: "B/16", "R50+B/16", "R50x1", "micro/2".

This is the only table of sizes; every other file asks here.
"""

import re
from dataclasses import dataclass

from vitexp import axes
from vitexp.nn.table import part

part("stem", "auto", label="as the name says", about="as the arch says")
part("stem", "patch", label="patches", about="patches of the image")


@dataclass(frozen=True)
class Body:
    """The sizes of one Transformer encoder."""

    width: int
    depth: int
    mlp_width: int
    heads: int


# B, L, H: ViT paper, Table 1. Ti, S: "How to train your ViT" (2021). g, G: "Scaling Vision Transformers" (2021).
# b: ViT paper, Fig. 4: B with every hidden dimension halved; its heads are not stated, so the head width of 64 is kept.
# micro: not from a paper; the smallest size at which every axis still has room, for 8x8 digits on a laptop.
BODIES = {
    "micro": Body(64, 4, 256, 4),
    "Ti": Body(192, 12, 768, 3),
    "S": Body(384, 12, 1536, 6),
    "b": Body(384, 12, 1536, 6),
    "B": Body(768, 12, 3072, 12),
    "L": Body(1024, 24, 4096, 16),
    "H": Body(1280, 32, 5120, 16),
    "g": Body(1408, 40, 6144, 16),
    "G": Body(1664, 48, 8192, 16),
}


@dataclass(frozen=True)
class Hybrid:
    """A ResNet stem: its prefix in a name, blocks per stage for each down-sampling, the patch cut from its output."""

    prefix: str
    blocks: dict[int, tuple[int, ...]]
    feature_patch: int = 1


# ViT paper, section 3.1 and appendix B.1: at /16 the fourth stage is gone and its three blocks sit in the third.
# R26 and R: "How to train your ViT" (2021). "R" is the root alone; it strides by 4 and is then cut into 8x8 patches, so
# R+Ti/16 really strides by 32. The name is kept because released files carry it. R14, by the same rule, is not from a
# paper: a hybrid that a laptop trains.
HYBRIDS = {
    "resnet50": part("stem", "resnet50", label="ResNet-50 stem", about="a ResNet-50 in front, at /16 and /32")(
        Hybrid("R50", {16: (3, 4, 9), 32: (3, 4, 6, 3)})
    ),
    "resnet26": part("stem", "resnet26", label="ResNet-26 stem", about="a ResNet-26, at /32")(
        Hybrid("R26", {32: (2, 2, 2, 2)})
    ),
    "resnet14": part("stem", "resnet14", label="ResNet-14 stem", about="a ResNet-14, at /16 and /32")(
        Hybrid("R14", {16: (1, 1, 2), 32: (1, 1, 1, 1)})
    ),
    "root": part("stem", "root", label="ResNet root", about="the root of a ResNet alone, at /16")(
        Hybrid("R", {16: ()}, feature_patch=8)
    ),
}

part("stem", "conv", label="convolutions", about="convolutions that halve the image until a patch is one pixel")

# Bottlenecks per stage of the ResNet baselines. Source: BiT paper and code; 26 from "How to train your ViT" (2021).
# 14, one a stage, is like micro not from a paper; with half the channels (R14x0.5) it is the smallest there is.
RESNETS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

# GroupNorm has groups of so many channels in the stem `conv`.
CHANNELS_IN_GROUP = 8

_RESNET = re.compile(rf"R({'|'.join(map(str, RESNETS))})x(0\.5|[1-9]\d?)")
# A body without a name, by its width, depth, MLP width and heads: w1024d8m2048h16, where the paper's Fig. 8 starts.
_FREE = r"w[1-9]\d*d[1-9]\d*m[1-9]\d*h[1-9]\d*"
_PATTERN = re.compile(
    rf"(?:({'|'.join(h.prefix for h in HYBRIDS.values())})\+)?({'|'.join(BODIES)}|{_FREE})/([1-9]\d*)"
)


@dataclass(frozen=True, kw_only=True)
class Arch:
    """An architecture in sizes. `patch` is the number in the name, `feature_patch` what the stem really cuts.

    A ResNet (family "resnet") has blocks and a factor on all its channels, and no encoder: those sizes are 0.
    """

    name: str
    family: str
    stem: str
    width: int
    depth: int
    mlp_width: int
    heads: int
    patch: int
    feature_patch: int
    resnet_blocks: tuple[int, ...] | None
    resnet_width: float = 1

    @property
    def full_name(self) -> str:
        """The name with its stem, "R50+B/16"; `name` is the same without it, "B/16"."""
        return f"{HYBRIDS[self.stem].prefix}+{self.name}" if self.stem in HYBRIDS else self.name

    @property
    def convolutions(self) -> tuple[int, ...]:
        """Channels of the stem `conv`, doubled with each halving of the image: S/16 has 48, 96, 192, 384."""
        left = range(self.patch.bit_length() - 1) if self.stem == "conv" else ()
        return tuple(self.width >> halvings for halvings in reversed(left))


def parse_arch(name: str, stem: str = "auto") -> Arch:
    """Reads a name, and lets `stem` choose where the name is plain: "S/32" with "resnet50" is "R50+S/32".

    Raises: ValueError for an unknown name, and for a stem that the name contradicts or that this patch does not have.
    """
    if match := _RESNET.fullmatch(name):
        return _resnet(name, int(match[1]), float(match[2]), stem)
    match = _PATTERN.fullmatch(name)
    if match is None:
        hybrids = ", ".join(f"{hybrid.prefix}+BODY/{patch}" for hybrid in HYBRIDS.values() for patch in hybrid.blocks)
        raise ValueError(
            f"arch {name!r} is unknown; write BODY/PATCH, or for a hybrid {hybrids}, where BODY is one of "
            f"{', '.join(BODIES)}, or in numbers w64d4m256h4 (width, depth, MLP width, heads), and PATCH a number of "
            "pixels, for example B/16 or R50+B/16; or for a ResNet "
            f"RLAYERSxWIDTH, where LAYERS is one of {', '.join(map(str, RESNETS))} and WIDTH 0.5 or 1 to 99: R50x1"
        )
    prefix, body, patch = match[1], match[2], int(match[3])
    stem = _choose_stem(name, prefix, stem)
    hybrid = HYBRIDS.get(stem)
    if hybrid is not None and patch not in hybrid.blocks:
        known = " or ".join(f"/{p}" for p in hybrid.blocks)
        raise ValueError(f"stem {stem} exists for {known}, not for arch {name!r}: choose such an arch or stem patch")
    arch = Arch(
        name=f"{body}/{patch}",
        family="vit",
        stem=stem,
        patch=patch,
        feature_patch=1 if stem == "conv" else hybrid.feature_patch if hybrid else patch,
        resnet_blocks=hybrid.blocks[patch] if hybrid else None,
        **vars(BODIES.get(body) or Body(*map(int, re.findall(r"\d+", body)))),
    )
    if stem == "conv" and (patch not in (2, 4, 8, 16, 32) or arch.width % (CHANNELS_IN_GROUP * patch // 2)):
        raise ValueError(
            "stem conv halves the image to patches of 2, 4, 8, 16 or 32 pixels and doubles its channels from a "
            f"multiple of {CHANNELS_IN_GROUP} to the width {arch.width}: choose another arch than {name!r}"
        )
    return arch


def _resnet(name: str, layers: int, width: float, stem: str) -> Arch:
    if stem != "auto":
        raise ValueError(f"stem {stem} has no effect on the ResNet {name}, which has a root of its own; leave it out")
    return Arch(
        name=name,
        family="resnet",
        stem=stem,
        **dict.fromkeys(("width", "depth", "mlp_width", "heads", "patch"), 0),
        feature_patch=1,
        resnet_blocks=RESNETS[layers],
        resnet_width=width,
    )


def _choose_stem(name: str, prefix: str | None, stem: str) -> str:
    named = next((word for word, hybrid in HYBRIDS.items() if hybrid.prefix == prefix), None)
    if named is not None and stem not in ("auto", named):
        raise ValueError(
            f"stem {stem!r} contradicts arch {name!r}, which names its own: use stem auto or {named}, or a plain arch"
        )
    if stem == "auto":
        return named or "patch"
    axes.check("stem", stem)
    return stem
