"""Which network an arm trains: a plain ViT, a hybrid or a ResNet, by the names that its runs give it."""

import re
from typing import Any

from vitexp import axes
from vitexp.record import flatten
from vitexp.study.arm import Arm

VIT, HYBRID, RESNET, OTHER = "vit", "hybrid", "resnet", "other"
NETWORK = ("model.arch", "model.stem")
_SIZES = re.compile(r"(?:(\w+)\+)?w(\d+)d(\d+)m(\d+)h(\d+)/(\d+)")


def family_of(arm: Arm) -> str:
    """The kind of an arm's network: a ViT is B/16, a hybrid R50+B/16, a ResNet R50x1; a stem of the user's own is none
    of these."""
    arch, stem = str(_setting(arm, "model.arch")), _setting(arm, "model.stem")
    if is_resnet(arch):
        return RESNET
    if axes.is_path(stem):
        return OTHER
    return HYBRID if "+" in arch or stem not in (None, "patch", "auto") else VIT


def is_resnet(name: str) -> bool:
    """Whether an architecture's name is that of a ResNet, such as R50x1."""
    return re.fullmatch(r"R\d+x[\d.]+", name) is not None


def sizes_in(name: str) -> re.Match[str] | None:
    """The parts of a name made of sizes, w32d2m64h2/4: stem (if any), width, depth, MLP width, heads and patch."""
    return _SIZES.fullmatch(name)


def sizes_of(arm: Arm) -> tuple[str, ...]:
    """Width, depth, MLP width, heads and patch of a plain ViT that is named by them; nothing of any other network."""
    match = sizes_in(str(_setting(arm, "model.arch")))
    return match.groups()[1:] if match and not match[1] else ()


def network(arm: Arm) -> str:
    """The network of an arm in a word; the stem is named, as in R50+B/16, where the architecture does not tell it."""
    arch, stem = str(_setting(arm, "model.arch")), str(_setting(arm, "model.stem"))
    if "+" in arch or family_of(arm) in (VIT, RESNET):
        return arch
    return f"{axes.own_label('model.stem', stem) if axes.is_path(stem) else stem.replace('resnet', 'R')}+{arch}"


def flops_of(arm: Arm) -> float:
    """What one run of an arm cost in training; 0 where no run tells it."""
    return next((run.train_flops for run in arm.runs.values() if run.train_flops), 0.0)


def _setting(arm: Arm, key: str) -> Any:
    """A value of an arm: from the config of its runs, which is resolved, or else from its factors."""
    return next((flatten(run.config).get(key) for run in arm.runs.values()), arm.factors.get(key))
