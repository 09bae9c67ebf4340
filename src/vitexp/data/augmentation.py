"""The numbers behind `data.augment` and `data.mix`, and which of them have an effect together."""

import json
import math
import re
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from vitexp import own
from vitexp.axes import is_path
from vitexp.data.own_augment import OwnStep

Augment = Literal["none", "crop", "flip", "crop_flip", "inception", "randaugment"]
Mix = Literal["none", "mixup", "cutmix", "mixup_cutmix"]
RANDAUGMENT = "rand-m9-n2-mstd0.5-inc1"
"""Two operations of magnitude 9 +- 0.5, each done every second time (DeiT's choice)."""
_INCEPTION = ("inception", "randaugment")
_PADDED = ("crop", "crop_flip")
_MOST_MAGNITUDE = 10  # timm cuts larger ones off, unless mmax says otherwise
_WHOLE, _NUMBER = r"\d+", r"\d+(?:\.\d+)?"
_RAND = {"m": _WHOLE, "n": _WHOLE, "p": _NUMBER, "mstd": _NUMBER, "mmax": _WHOLE, "inc": "[01]", "t": "weights|3a|3aw"}
_AUGMIX = {"m": _WHOLE, "w": _WHOLE, "d": _WHOLE, "a": _NUMBER, "b": "[01]", "mstd": _NUMBER}
_AUTO = {"mstd": _NUMBER}
_POLICIES = {
    "rand": _RAND, "augmix": _AUGMIX, "original": _AUTO, "originalr": _AUTO, "v0": _AUTO, "v0r": _AUTO, "3a": _AUTO,
}  # fmt: skip
own.Slot("auto_augment", object, ("__call__",), words=tuple(_POLICIES))
_NEEDED = {"rand": ("m", "n"), "augmix": ("m", "w")}
_EFFECT: dict[str, tuple[str, tuple[str, ...]]] = {
    "crop_scale": ("augment", _INCEPTION),
    "crop_ratio": ("augment", _INCEPTION),
    "crop_padding": ("augment", _PADDED),
    "mixup_alpha": ("mix", ("mixup", "mixup_cutmix")),
    "cutmix_alpha": ("mix", ("cutmix", "mixup_cutmix")),
    "mix_prob": ("mix", ("mixup", "cutmix", "mixup_cutmix")),
    "switch_prob": ("mix", ("mixup_cutmix",)),
}
"""The option and its values without which another changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strongly training images are augmented and mixed. Documented in docs/recipes.md.

    Raises: ValueError for a value that no image could be augmented with.
    """

    crop_scale: tuple[float, float] = (0.05, 1.0)
    """Least and largest area of an Inception crop, as shares of the image."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width of an Inception crop, as a multiple of its height."""
    crop_padding: int | None = None
    """Pixels by which crop and crop_flip pad the image, by reflection, before they crop; null for size // 8."""
    auto_augment: str = "none"
    """After the crop, a policy of timm in timm's own words: rand-m9-n2-mstd0.5 (RandAugment), original, originalr, v0
    or v0r (AutoAugment), augmix-m3-w3 (AugMix), 3a (3-Augment); or your own (MODULE:NAME)."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by random factors of 1 minus to 1 plus this (torchvision)."""
    random_erasing: float = 0.0
    """Probability that a random box of an image becomes noise (timm, mode pixel)."""
    repeats: int = 1
    """Times that an image comes in a row, each time augmented in another way; an epoch keeps its length, so it holds
    that share of the images (repeated augmentation)."""
    mixup_alpha: float = 0.8
    """Mixup's shares are drawn from Beta(alpha, alpha)."""
    cutmix_alpha: float = 1.0
    """CutMix's areas are drawn from Beta(alpha, alpha)."""
    mix_prob: float = 1.0
    """Probability that the images of a pair are mixed at all."""
    switch_prob: float = 0.5
    """Probability of CutMix where mix is mixup_cutmix; else it is mixup."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of an auto_augment of your own: --data.options.auto_augment.share 0.1"""
    sources: dict[str, str] = field(default_factory=dict)
    """Hash of its file: filled in; where one is given, a changed file is refused."""

    def __post_init__(self) -> None:
        _check_range("crop_scale", self.crop_scale, 1.0)
        _check_range("crop_ratio", self.crop_ratio, math.inf)
        for name, least, most in (("color_jitter", 0, 1), ("random_erasing", 0, 1), ("switch_prob", 0, 1)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be from {least} to {most}")
        if not 0 < self.mix_prob <= 1:
            raise ValueError(f"data.mix_prob is {self.mix_prob}; it must be above 0, up to 1 (for none, data.mix none)")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be above 0 (for none see data.mix)")
        if self.repeats < 1:
            raise ValueError(f"data.repeats is {self.repeats}; an image comes at least once")
        check_policy(self.auto_augment)

    def check(self, augment: Augment, mix: Mix) -> None:
        """Raises: ValueError for an option that has no effect with these two."""
        given = {"augment": augment, "mix": mix}
        for name in self.changed():
            option, needed = _EFFECT.get(name, ("augment", (augment,)))
            if given[option] not in needed:
                raise ValueError(
                    f"data.{name} {getattr(self, name)} has no effect with data.{option} {given[option]}; give "
                    f"data.{option} {' or '.join(needed)}, or leave it out"
                )
        if augment == "randaugment" and self.auto_augment != "none":
            raise ValueError(
                f"data.auto_augment {self.auto_augment} and data.augment randaugment, which is {RANDAUGMENT} after an "
                "Inception crop, are two policies; give data.augment inception"
            )
        alike = augment == self.auto_augment == "none" and not (self.color_jitter or self.random_erasing)
        if self.repeats > 1 and alike:
            raise ValueError(f"data.repeats {self.repeats} would show the same image again; give a data.augment too")

    @classmethod
    def of(cls, **options: Any) -> "Augmentation":
        """One with all options and the hash of an augmentation of the user's own. Raises: ValueError."""
        return own.settled(cls(**options), group="data")

    def policy(self, augment: Augment) -> str | OwnStep:
        """The policy that follows the crop."""
        if is_path(self.auto_augment):
            return OwnStep(self.auto_augment, json.dumps(self.options.get("auto_augment", {})))
        return RANDAUGMENT if augment == "randaugment" else self.auto_augment

    def changed(self) -> dict[str, Any]:
        """The options that are not left at their defaults."""
        every = {f.name: (getattr(self, f.name), {} if f.default is MISSING else f.default) for f in fields(self)}
        return {name: value for name, (value, default) in every.items() if _plain(value) != _plain(default)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_range(name: str, given: tuple[float, float], most: float) -> None:
    """Raises: ValueError unless these are two rising numbers above 0."""
    if len(given) != 2 or not 0 < given[0] <= given[1] <= most or math.isinf(given[1]):
        upto = " up to 1" if most == 1 else ""
        raise ValueError(f"data.{name} is {list(given)}; give the least and the largest, both above 0{upto}")


def check_policy(text: str) -> None:
    """Raises: ValueError for words that timm would not take, or would take for something else."""
    kind, *parts = text.split("-")
    where = f"data.auto_augment is {text!r}"
    if text == "none" or is_path(text):
        return
    if kind not in _POLICIES:
        raise ValueError(f"{where}; give none or one of timm's policies: {', '.join(_POLICIES)}")
    found: dict[str, str] = {}
    for part in parts:
        names = [n for n, pattern in _POLICIES[kind].items() if re.fullmatch(f"{n}(?:{pattern})", part)]
        if not names or names[0] in found:
            allowed = ", ".join(f"-{name}" for name in _POLICIES[kind])
            raise ValueError(f"{where}, where {part!r} is unknown; {kind} takes, each once and with a value, {allowed}")
        found[names[0]] = part.removeprefix(names[0])
    if lacks := [name for name in _NEEDED.get(kind, ()) if name not in found]:
        raise ValueError(f"{where}, which says nothing of {lacks[0]}; write {kind}-m9-{_NEEDED[kind][1]}2, for example")
    most = int(found.get("mmax", _MOST_MAGNITUDE))
    if kind == "rand" and int(found["m"]) > most:
        raise ValueError(f"{where}; timm cuts magnitudes off at {most}, so add -mmax{found['m']}, or more")
    if kind == "augmix" and int(found["m"]) > most:
        raise ValueError(f"{where}; timm cuts magnitudes off at {most}")
    if kind == "rand" and (not int(found["n"]) or not 0 < float(found.get("p", 1)) <= 1):
        raise ValueError(f"{where}; at least one operation (n) is needed, with a probability (p) above 0, up to 1")


PLAIN = Augmentation()
