"""Dotted keys, their values and metrics in the words of the field, and numbers as a reader wants them.

A key or value without an entry stands for itself. A test sees to it that values of our sweeps and flags have one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vitexp import axes, stats
from vitexp.metrics import is_share
from vitexp.metrics import label as metric_label
from vitexp.study.claims import families
from vitexp.study.spec import Study
from vitexp.study.table import Label

KEYS = {
    "model.arch": "model",
    "model.block": "blocks",
    "model.clip_norm": "largest gradient norm",
    "model.decay": "weights that decay",
    "model.drop_path": "stochastic depth",
    "model.eps": "epsilon",
    "model.gelu": "activation",
    "model.head_bias": "bias of the head",
    "model.image_size": "pixels",
    "model.layer_decay": "layer-wise decay of the rate",
    "model.lr": "learning rate",
    "model.masked_share": "share of masked patches",
    "model.min_lr": "least learning rate",
    "model.mlp": "MLP",
    "model.polyak": "Polyak average",
    "model.pool": "readout",
    "model.pos_at": "added",
    "model.pos_embed": "position embedding",
    "model.pos_join": "positions and tokens",
    "model.pos_std": "start of the positions, std",
    "model.qk_norm": "norm of queries and keys",
    "model.resnet": "order of the units",
    "model.warmup_epochs": "warm-up epochs",
    "model.warmup_steps": "warm-up steps",
    "data.augment": "augmentation",
    "data.auto_augment": "policy",
    "data.color_jitter": "colour jitter",
    "data.crop_padding": "padding of crops",
    "data.crop_ratio": "aspect of crops",
    "data.crop_scale": "area of crops",
    "data.cutmix_alpha": "CutMix alpha",
    "data.eval_view": "view of test images",
    "data.image_size": "pixels",
    "data.mix": "mixing of images",
    "data.mix_prob": "share of pairs that are mixed",
    "data.name": "data set",
    "data.repeats": "repeats of an image",
    "data.shards": "data set",
    "data.subset_seed": "seed of the subset",
    "data.switch_prob": "share of CutMix",
    "data.train_fraction": "share of the training images",
    "data.train_images": "training images",
    "data.val_fraction": "share held out for validation",
    "data.val_seed": "seed of the validation slice",
    "run.init": "start",
    "run.keep": "weights kept",
    "run.compile": "compiled",
    "run.matmul_precision": "fp32 matrix products",
    "study.groups": "group",
    "trainer.accumulate_grad_batches": "batches per step",
    "trainer.max_epochs": "epochs",
    "trainer.max_steps": "steps",
    "seed_everything": "seed",
    "relative_flops": "compute relative to the baseline",
    "train_flops": "training compute",
    "train_seconds": "training time",
}

VALUES: dict[str, dict[str | None, str]] = {
    **{f"model.{axis}": found for axis, found in axes.labels().items()},
    "model.optimizer": {
        "adamw": "AdamW", "sgd": "SGD", "muon": "Muon", "lion": "Lion", "lamb": "LAMB", "adafactor": "Adafactor",
    },
    "model.schedule": {
        "cosine": "cosine decay", "linear": "linear decay", "constant": "constant rate", "staircase": "staircase decay",
    },
    "model.decay": {"all": "all weights decay", "kernels": "only kernels decay"},
    "model.loss": {"softmax": "softmax loss", "sigmoid": "sigmoid loss"},
    "model.objective": {
        "classify": "classes", "masked_mean": "masked patches by mean colour",
        "masked_small": "masked patches by 4x4 colours", "masked_pixels": "masked patches by their pixels",
    },
    "data.augment": {
        "none": "no augmentation", "crop": "random crops", "flip": "random flips",
        "crop_flip": "random crops and flips",
        "inception": "Inception crops and flips", "randaugment": "Inception crops, flips and RandAugment",
    },
    "data.mix": {
        "none": "no mixing", "mixup": "mixup", "cutmix": "CutMix", "mixup_cutmix": "mixup and CutMix by turns",
    },
    "data.auto_augment": {"none": "no policy"},
    "data.crop_padding": {None: "an eighth of the image"},
    "data.eval_view": {"resize": "whole images", "crop": "middle squares"},
    "data.reader": {
        "auto": "chosen reader", "cache": "cached pixels", "local": "local reads", "stream": "streamed shards",
    },
    "data.train_images": {None: "all"},
    "data.train_fraction": {None: "all"},
    "data.image_size": {None: "their own size"},
    "model.betas": {None: "the optimizer's own"},
    "model.eps": {None: "the optimizer's own"},
    "model.pos_std": {None: "their own start"},
    "run.init": {"none": "from scratch"},
    "run.keep": {"last": "last weights", "best": "best validated weights"},
    "run.matmul_precision": {"highest": "in fp32", "high": "with TF32 inside", "medium": "with bf16 inside"},
}  # fmt: skip

COUNTED = (
    "data.train_images", "data.train_fraction", "data.image_size", "model.image_size", "model.warmup_steps",
    "model.registers", "trainer.max_epochs", "trainer.max_steps",
)  # fmt: skip
"""Keys that stand behind their value in a label: 64 training images, 0.1 of the training images."""

_SEED = re.compile(r"seed-\d+")


def key_label(key: str) -> str:
    """What a dotted key means."""
    return KEYS.get(key, key.rpartition(".")[2].replace("_", " "))


def value_label(key: str, value: Any) -> str:
    """What a value of a key means."""
    known = VALUES.get(key, {})
    if isinstance(value, str | None) and value in known:
        return known[value]
    if axes.is_own(key, value):
        return axes.own_label(key, value)
    if isinstance(value, str):
        return NAMES.get(key, str)(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, int | float):
        return "unset" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def title(study: Study) -> str:
    """The heading of what is shown of a study."""
    return study.config.title or f"Study {study.name}"


def sentence(clause: str) -> str:
    """A note as a sentence of its own."""
    return f"{clause[0].upper()}{clause[1:]}."


def cautions(clauses: Sequence[str]) -> tuple[str, ...]:
    """What stands above the numbers, because they are not to be read without it."""
    return tuple(f"Caution: {clause}." for clause in clauses)


def label_text(label: Label) -> str:
    """A row, column or arm in words: its values, with the key where a value would not be understood alone."""
    values = dict(label)
    parts = [_one(key, value, len(values) > 1) for key, value in label if not _goes_without(key, value, values)]
    return ", ".join(parts)


def _one(key: str, value: Any, among_others: bool) -> str:
    if among_others and (key, value) == ("model.pos_embed", "none"):
        return f"no {key_label(key)}"
    text = value_label(key, value)
    if key in COUNTED:
        what = key_label(key).removeprefix("share ")
        return f"{text} {what.removesuffix('s') if value == 1 and isinstance(value, int) else what}"
    if key in NAMES or axes.is_own(key, value) or (isinstance(value, str | None) and value in VALUES.get(key, {})):
        return text
    return f"{key_label(key)} {text}"


def _goes_without(key: str, value: Any, label: Mapping[str, Any]) -> bool:
    """What says nothing beside the rest of a label: where no positions are added, which stem a name means."""
    if value is None and None not in VALUES.get(key, {}) and any(other is not None for other in label.values()):
        return True  # an option that other arms set
    if key in ("model.pos_at", "model.pos_std", "model.pos_join"):
        return label.get("model.pos_embed") == "none"
    if key == "model.stem":
        return value == "auto" and "model.arch" in label
    return key == "model.resnet" and not families.is_resnet(str(label.get("model.arch", "R50x1")))


def network_label(name: str) -> str:
    """A network by its name, or by its sizes where the name is made of them."""
    sizes = families.sizes_in(name)
    if sizes is None:
        return name
    stem, *numbers = sizes.groups()
    words = zip(("width", "depth", "MLP", "heads", "patch"), numbers, strict=True)
    return (f"{stem} + " if stem else "") + ", ".join(f"{word} {number}" for word, number in words)


def start_label(init: str) -> str:
    """Weights to start from by who left them: a run's study and cell, a file's name, or timm's."""
    if init.startswith(("timm:", "timm/")):
        return f"from timm's {init[5:]}"
    path = PurePosixPath(init)
    if path.parent.name != "checkpoints":
        return f"from {path.stem}"
    *_, study, cell, last = ("", "", *path.parent.parent.parts)
    run = (study, cell, last) if _SEED.fullmatch(last) else (cell, last)
    named = [part.replace("-", " ") if _SEED.fullmatch(part) else part for part in run if part not in ("", "last")]
    return f"from {' '.join(named)}"


NAMES: dict[str, Callable[[str], str]] = {
    "model.arch": network_label,
    "data.shards": lambda shards: shards.rstrip("/").rpartition("/")[2],
    "data.name": str,
    "data.auto_augment": "policy {}".format,
    "line": str,
    "run.init": start_label,
}
"""Keys whose values are names, without number."""


def number(value: float, metric: str) -> str:
    """A value of a metric: accuracies in per cent."""
    return signed(value, metric).removeprefix("+")


def signed(value: float, metric: str) -> str:
    """A difference of a metric with its sign: accuracies in percentage points."""
    text = f"{100 * value:+.2f}" if is_share(metric) else f"{value:+.4f}"
    return text.replace("-", "−") if float(text) else text[1:]


def headline(metric: str, counts: Sequence[int]) -> str:
    """What stands over the means of a metric, with the seeds behind each."""
    unit = ", %" if is_share(metric) else ""
    text = f"{metric_label(metric)}{unit}: mean ± 95 % interval, n = {span(counts)} seeds"
    return text[0].upper() + text[1:]


def mean(interval: stats.Interval, metric: str) -> str:
    """A mean with half of its interval, or with both ends where these were cut at 0 or 100 %."""
    if interval.low is not None and interval.high is not None and is_cut(interval, metric):
        return f"{number(interval.mean, metric)} ({number(interval.low, metric)} to {number(interval.high, metric)})"
    return number(interval.mean, metric) + half_width(interval, metric)


def is_cut(interval: stats.Interval, metric: str) -> bool:
    """Whether an interval of a share ends at 0 or at 100 %."""
    return is_share(metric) and (interval.low == 0 or interval.high == 1)


def half_width(interval: stats.Interval, metric: str) -> str:
    """Half of an interval behind its mean, where the seeds differ at all."""
    return "" if interval.high is None else f" ± {number(interval.high - interval.mean, metric)}"


def points(value: float) -> str:
    """A difference in accuracy as words: 0.01 is 1 point."""
    return f"{100 * value:.3g} point" + ("" if f"{100 * value:.3g}" == "1" else "s")


def probability(p: float | None) -> str:
    """A p-value to three decimals."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as a reader writes them: 0–4, or 0, 2, 3."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def comparisons_text(count: int) -> str:
    """A number of comparisons, as in a sentence."""
    return "one comparison" if count == 1 else f"{count} comparisons"


def span(values: Sequence[int]) -> str:
    """A count that may differ from arm to arm: 5, or 3–5."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
