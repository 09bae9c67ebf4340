"""Dotted keys, their values and metrics in the words of the field, and numbers as a reader wants them.

A key or value without an entry stands for itself, so that a new one needs no line here.
"""

from collections.abc import Sequence
from typing import Any

from vitexp.study.table import Label, is_accuracy

KEYS = {
    "model.pos_embed": "position embedding",
    "model.pos_at": "added",
    "model.pool": "readout",
    "model.lr": "learning rate",
    "model.arch": "model",
    "data.train_images": "training images",
    "data.train_fraction": "share of the training images",
    "data.shards": "data set",
}
VALUES = {
    ("model.pos_embed", "1d"): "1-D",
    ("model.pos_embed", "2d"): "2-D",
    ("model.pos_at", "stem"): "at the stem",
    ("model.pos_at", "every"): "every layer",
    ("model.pos_at", "shared"): "every layer, shared",
    ("model.pool", "cls"): "class token",
    ("model.pool", "gap"): "global average pooling",
    ("model.stem", "patch"): "patches",
    ("model.stem", "resnet50"): "ResNet-50 stem",
    ("data.train_images", None): "all",
}
METRICS = {
    "test_acc": "top-1 accuracy",
    "val_acc": "top-1 accuracy on the validation slice",
    "test_loss": "loss on the test split",
    "val_loss": "loss on the validation slice",
}


def key_words(key: str) -> str:
    """What a dotted key means."""
    return KEYS.get(key, key.rpartition(".")[2].replace("_", " "))


def value_words(key: str, value: Any) -> str:
    """What a value of a key means."""
    if isinstance(value, str | None) and (key, value) in VALUES:
        return VALUES[key, value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def label_words(label: Label) -> str:
    """A row, column or arm in words: its values, with the key where a value is a bare number or switch."""
    return ", ".join(_one(key, value) for key, value in label)


def _one(key: str, value: Any) -> str:
    if key == "data.train_images":
        return f"{value_words(key, value)} {key_words(key)}"
    return f"{key_words(key)} {value_words(key, value)}" if isinstance(value, int | float) else value_words(key, value)


def metric_words(metric: str) -> str:
    """What a metric measures."""
    if metric.startswith("fewshot_"):
        return f"{metric.removeprefix('fewshot_')}-shot linear accuracy"
    return METRICS.get(metric, metric.replace("_", " "))


def number(value: float, metric: str) -> str:
    """A value of a metric: accuracies in per cent."""
    return signed(value, metric).removeprefix("+")


def signed(value: float, metric: str) -> str:
    """A difference of a metric with its sign: accuracies in percentage points."""
    text = f"{100 * value:+.2f}" if is_accuracy(metric) else f"{value:+.4f}"
    return text.replace("-", "−") if float(text) else text[1:]


def points(value: float) -> str:
    """A difference in accuracy as words: 0.01 is 1 point."""
    return f"{100 * value:.3g} point" + ("" if f"{100 * value:.3g}" == "1" else "s")


def probability(p: float | None) -> str:
    """A p-value to three decimals."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def seeds_words(seeds: Sequence[int]) -> str:
    """Seeds as a reader writes them: 0–4, or 0, 2, 3."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def comparisons_words(count: int) -> str:
    """So many comparisons."""
    return "one comparison" if count == 1 else f"{count} comparisons"


def span(values: Sequence[int]) -> str:
    """A count that may differ from arm to arm: 5, or 3–5."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"
