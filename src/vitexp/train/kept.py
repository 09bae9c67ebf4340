"""Which checkpoint validate, test and predict read."""

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from vitexp.data.module import ShardData
from vitexp.nn.vit import ViTConfig
from vitexp.record import RECORD_NAME, read_record
from vitexp.train.admission import claim
from vitexp.train.config import plain
from vitexp.train.continuation import check_network, check_own, differences, listed, read_origin
from vitexp.train.module import Classifier
from vitexp.train.plan import RunPlan

_NETWORK = [field.name for field in fields(ViTConfig) if field.name != "classes"] + ["objective", "loss", "polyak"]
"""Options of the model that decide what a checkpoint computes."""


class Command(Protocol):
    """What is needed of the parsed command."""

    plan: RunPlan
    trainer: Any
    model: Classifier
    datamodule: ShardData

    @property
    def last_checkpoint(self) -> Path:
        """Where this run's newest checkpoint lies."""


def checkpoint_of(command: Command, arguments: dict[str, Any]) -> str:
    """The checkpoint to read: never fresh random weights without a word, and never another network's.

    Raises: ValueError when none is given and this run has left none, or when it holds another network.
    """
    given = arguments.get("ckpt_path")
    if given and given != "last":
        check_network(read_origin(given), plain(command.model.config), _NETWORK)
        return str(given)
    plan, earlier = command.plan, claim(command.plan, command.datamodule.describe())
    if not command.last_checkpoint.is_file():
        raise ValueError(
            f"this config has no trained weights: no {command.last_checkpoint} (fingerprint {plan.fingerprint})"
            f"{_nearest(plan)}; train it with `vitexp fit`, or give --ckpt_path"
        )
    check_own(read_origin(command.last_checkpoint), plan.config)
    if earlier is not None and earlier.status != "finished" and command.trainer.is_global_zero:
        print(f"this run is {earlier.status}, not finished: measuring its newest checkpoint")
    return str(command.last_checkpoint)


def _nearest(plan: RunPlan) -> str:
    """The run of the same study that differs in the fewest options, and in which."""
    folder = plan.directory.parent.parent
    if plan.directory.parts[-3:-1] != (plan.study, plan.cell):
        return ""  # a folder of its own, which says nothing of where others lie
    apart = {}
    for path in sorted(folder.glob(f"*/*/{RECORD_NAME}")):
        with contextlib.suppress(ValueError, OSError):
            apart[path.parent] = differences(read_record(path).config, plan.config)
    if not apart:
        return ""
    nearest = min(apart, key=lambda place: len(apart[place]))
    return f"; the nearest run, {nearest}, is another: here {listed(apart[nearest])}"
