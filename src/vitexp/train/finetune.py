"""Transfer: fit from given weights, with what the paper says of fine-tuning as defaults."""

from collections.abc import Sequence

from vitexp.train.command import TrainingCommand
from vitexp.train.initial import NONE

DEFAULTS = {
    "model.optimizer": "sgd",
    "model.schedule": "cosine",
    "model.weight_decay": "0.0",
    "model.clip_norm": "1.0",
    "model.loss": "softmax",
    "model.head": "linear",
    "data.batch_size": "512",
}
"""Source: paper sheet 2.3, Table 4 and what is common to it; momentum is always 0.9."""
SHORT = {"--init": "--run.init", "--download": "--run.download"}
"""Flags that finetune knows under shorter names too."""


class Finetune(TrainingCommand):
    """A fit that does not begin with random weights."""

    def check_start(self) -> None:
        """Raises: ValueError when no weights are given."""
        if self.run.init == NONE:
            raise ValueError(
                "finetune starts from given weights; add --init CHECKPOINT, .safetensors, .npz or timm:NAME"
            )


def as_fit(words: Sequence[str]) -> list[str]:
    """The same run in the words of fit: defaults first, so that a config or a flag overrules them."""
    defaults = [f"--{name}={value}" for name, value in DEFAULTS.items()]
    return ["fit", *defaults, *(_long(word) for word in words)]


def _long(word: str) -> str:
    name, equals, value = word.partition("=")
    if word == "--download":  # as the verbs that measure have it; the flags of fit all take a value
        equals, value = "=", "true"
    return f"{SHORT.get(name, name)}{equals}{value}"
