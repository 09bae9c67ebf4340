"""The table of metrics: the unit of each, which direction is better, and its label. Only the standard library.

A name in a record is made of parts: `val_acc` is the row `acc` on the split `val`; `limited_val_acc` is the same over a
part of its images; `fewshot_5` is a linear probe on 5 images a class, measured on the test split, and
`fewshot_5_images` how many it was fitted on where a class has fewer; `robust/drop_50` is the accuracy on test images
that `vitexp robustness` has changed. Rows for what is computed from logits and labels
stand beside their code in `eval/metrics.py` and are read from there without torch.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

from vitexp.axes import literal_calls

Better = Literal["higher", "lower"]
Unit = Literal["share", "nats", "images", "steps", "number"]
PROBE_PENALTY = 1024.0
"""Of the ridge regression behind `fewshot_N`, as big_vision has it."""
LIMITED = "limited_"
"""What the name of a number begins with where not all images of its split were measured."""
GOALS = {"higher": "maximize", "lower": "minimize"}
"""W&B's words for the two directions."""

_SPLITS = {"train": " in training", "val": " on the validation slice", "test": " on the test split"}
_LOWER = re.compile(r"[a-z][a-z0-9_]*")
_NAME = re.compile(rf"({LIMITED})?({'|'.join(_SPLITS)})_(\w+)|fewshot_([1-9]\d*)(_images)?")


class Row(NamedTuple):
    """What is measured, whatever the split."""

    name: str
    unit: Unit
    """A share lies in 0..1 and is shown in per cent."""
    better: Better | None
    """None for a fact that is neither good nor bad, such as a count of images."""
    label: str
    in_training: bool = False
    """Whether training logs it as well, so that the test split must be named."""


_OWN = (
    Row("acc", "share", "higher", "top-1 accuracy"),
    Row("loss", "nats", "lower", "loss", in_training=True),
    Row("colour_acc", "share", "higher", "colours of masked patches that were right"),
    Row("images", "images", None, "images measured"),
)
_LEARNED: dict[str, Row] = {}
"""Of evaluators of the user's own, as the records that were read say."""
ROBUST = "robust/"
"""What the names of numbers on changed test images begin with."""
CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness", "contrast", "pixelate",
    "jpeg_compression", "glass_blur", "motion_blur", "zoom_blur", "snow", "fog", "elastic_transform",
)  # fmt: skip
"""The families of ImageNet-C that `eval/corruptions.py` makes. Their places decide what is drawn: add at the end."""
_CHANGES = {
    r"clean": "images as they are",
    r"shuffle_(\d+)x(\d+)": "pieces of a grid of {} x {} shuffled",
    r"drop_(\d+)": "{} % of the patches blanked, at random",
    r"salient_(\d+)": "the {} % most salient patches blanked",
    r"nonsalient_(\d+)": "the {} % least salient patches blanked",
    r"attended_(\d+)": "the {} % of the patches blanked that the network itself attends to most",
    r"translate_(\d)": "moved by {}/8 of the side",
    r"rotate_(\d+)": "turned by {} degrees",
    r"scale_(\d+)": "shrunk to {} %",
    r"fgsm_(\d+)": "FGSM within {}/255",
    r"pgd_(\d+)": "PGD within {}/255",
    r"patch_(\d+)": "adversarial patch of {} % of the side",
    r"data_([\w.-]+)": "images of {}",
    rf"({'|'.join(CORRUPTIONS)})": "{}, mean of five severities",
    rf"({'|'.join(CORRUPTIONS)})_([1-5])": "{}, severity {}",
    rf"ours_({'|'.join(CORRUPTIONS)})": "{} of ours, mean of five severities",
    rf"ours_({'|'.join(CORRUPTIONS)})_([1-5])": "{} of ours, severity {}",
}
"""By the name of a change of the test images what it is, in words."""
_BEST_STEP = Row("best_step", "steps", None, "step of the best validation")


@cache
def of_logits() -> tuple[Row, ...]:
    """The rows that `eval/metrics.py` adds with `@metric(...)`. Raises: ValueError naming the line of a wrong one."""
    rows: list[Row] = []
    for call in literal_calls("eval", "metric"):
        where, taken = f"line {call.line} of {call.module}", [row.name for row in (*_OWN, _BEST_STEP, *rows)]
        try:
            row = Row(*call.arguments, **call.keywords)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
        if not _LOWER.fullmatch(str(row.name)) or row.name in taken:
            raise ValueError(f"{where}: metric {row.name!r} is taken or not a lower-case name; give it another")
        if row.unit not in get_args(Unit) or row.better not in (*GOALS, None):
            raise ValueError(
                f"{where}: metric {row.name!r} has unit {row.unit!r} and better {row.better!r}; give one of "
                f"{', '.join(get_args(Unit))}, and higher, lower or None"
            )
        rows.append(row)
    return tuple(rows)


def find(name: str) -> Row | None:
    """The row of a metric with its full label, by its name in a record; None for one that the table does not know."""
    if name == _BEST_STEP.name:
        return _BEST_STEP
    if changed := change(name):
        return Row(name, "share", "higher", f"top-1 accuracy, {changed}")
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    limited, split, reading, shots, images = parts.groups()
    if images:
        return Row(name, "images", None, f"images that a {shots}-shot probe was fitted on")
    if shots:
        return Row(name, "share", "higher", f"{shots}-shot linear accuracy")
    own = _LEARNED.values() if split == "test" else ()
    row = next((row for row in (*_OWN, *of_logits(), *own) if row.name == reading), None)
    if row is None or (split == "train" and not row.in_training):
        return None
    where = "" if split == "test" and not row.in_training else _SPLITS[split]
    part = ", over a part of its images" if limited else ""
    return row._replace(name=name, label=f"{row.label}{where}{part}")


def change(name: str) -> str:
    """How the test images of a metric were changed, in words; empty for a metric of images as they are."""
    if name.startswith(ROBUST):
        for pattern, words in _CHANGES.items():
            if found := re.fullmatch(pattern, name.removeprefix(ROBUST)):
                return words.format(*(part.replace("_", " ") for part in found.groups()))
    return ""


def split_of(name: str) -> str | None:
    """The split that a metric is measured on; None where the name has none. A few-shot probe is a number of `test`."""
    if change(name):
        return "test"
    parts = _NAME.fullmatch(name)
    return None if parts is None else parts[2] or "test"


def better(name: str, where: str = "the metric") -> Better:
    """Which direction of a metric is better; `where` is the setting that names it, for the sentence of the error.

    Raises: ValueError for a metric that has none or is unknown, with those that are known.
    """
    row = find(name)
    if row is not None and row.better is not None:
        return row.better
    what = "not a known metric" if row is None else f"a number of {row.unit}, which has no better or worse"
    raise ValueError(f"{where} is {name}, which is {what}; known are {known()}")


def is_judged(name: str) -> bool:
    """Whether two values of a metric can be called better and worse."""
    return getattr(find(name), "better", None) is not None


def higher_is_better(name: str) -> bool:
    """The direction as a truth value. Raises: ValueError, as `better` does."""
    return better(name) == "higher"


def is_share(name: str) -> bool:
    """Whether a metric lies in 0..1, so that readers see it in per cent."""
    return getattr(find(name), "unit", None) == "share"


def is_accuracy(name: str) -> bool:
    """Whether a metric is a share of images or patches that were right."""
    return is_share(name) and is_judged(name) and higher_is_better(name)


def label(name: str) -> str:
    """What a metric measures, for a heading; an unknown one is its own label."""
    return getattr(find(name), "label", name.replace("_", " "))


def check_goal(name: str, goal: str | None) -> None:
    """Accepts W&B's goal for a metric. Raises: ValueError when it is the wrong direction, or the metric is unknown."""
    direction = better(name, "metric.name")
    right = GOALS[direction]
    if goal is None and right != "minimize":
        raise ValueError(f"metric.goal is missing, so W&B would minimize {name}; write goal: {right}")
    if goal not in (None, right):
        raise ValueError(f"metric.goal is {goal}, but {direction} is better for {name}; write goal: {right}")


def known() -> str:
    """The metrics that have a direction, as a user names them."""
    rows = [row.name for row in (*_OWN, *of_logits()) if row.better]
    own = "".join(f"test_{row.name}, " for row in _LEARNED.values() if row.better)
    return f"{', '.join(f'{split}_{row}' for split in ('val', 'test') for row in rows)}, {own}fewshot_N, {ROBUST}TEST"


def is_taken(name: object) -> bool:
    """Whether an evaluator cannot call its number so: another one's name, or no lower-case one."""
    rows = (*_OWN, *of_logits(), _BEST_STEP)
    return not isinstance(name, str) or not _LOWER.fullmatch(name) or name in [row.name for row in rows]


def learn(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Takes what evaluators of the user's own measure from the `parts` of a record; what contradicts has no better."""
    for part in parts.values():
        given = part.get("metrics")
        for name, said in given.items() if isinstance(given, Mapping) else ():
            if not is_taken(name) and isinstance(said, Mapping) and said.get("unit") in get_args(Unit):
                better: Any = said.get("better") if said.get("better") in GOALS else None
                row = Row(name, said["unit"], better, str(said.get("label", name)))
                known = _LEARNED.setdefault(name, row)
                _LEARNED[name] = known if known.better == row.better else known._replace(better=None)


def is_learned(name: str) -> bool:
    """Whether a metric is that of an evaluator of the user's own."""
    parts = _NAME.fullmatch(name)
    return parts is not None and parts[3] in _LEARNED
