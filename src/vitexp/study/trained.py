"""Whether a run trained, and for as long as it was meant to: what its record shows."""

import math
from collections.abc import Sequence

from vitexp.record import RunRecord, flatten

_ERRORS = 2.0
"""Standard errors above the chance level up to which an accuracy cannot be told from guessing."""
_ROUNDED = 0.98
"""Share of the epochs from which on they count as done: the last batch of an epoch may be dropped."""


def why_untrained(run: RunRecord) -> str:
    """What shows that a run did not train; empty for a run that did, and for one whose record does not say."""
    if run.steps == 0:
        return "it took no step"
    start, end = _losses(run)
    if start is not None and end is not None and not end < start:
        return f"training loss {start:.4g} at the start, {end:.4g} at the end"
    for metric in ("test_acc", "val_acc"):
        accuracy, chance = run.metrics.get(metric), chance_of(run)
        if accuracy is not None and chance is not None and at_chance(accuracy, chance, run):
            return f"{metric} {100 * accuracy:.1f} %, and guessing gives {100 * chance:.1f} %"
    return ""


def chance_of(run: RunRecord) -> float | None:
    """The accuracy of guessing: the share of the largest class, or an equal share of all classes."""
    classes = run.data.get("classes")
    return run.learning.get("chance_acc", 1 / classes if classes and classes > 1 else None)


def at_chance(accuracy: float, chance: float, run: RunRecord) -> bool:
    """Whether an accuracy cannot be told from guessing, by the number of test images where it is known."""
    images = run.data.get("test_images")
    error = math.sqrt(chance * (1 - chance) / images) if images else 0.0
    return not accuracy > chance + _ERRORS * error


def stopped_at(run: RunRecord) -> str:
    """How far a run came that did not take its last planned step."""
    plan = f" of {run.planned_steps:,}" if run.planned_steps is not None else ""
    reached = f" at {run.steps:,}{plan} steps" if run.steps is not None else ""
    return f"stopped{reached}" + (f": {run.reason}" if run.reason else "")


def cut_short(run: RunRecord) -> str:
    """How a run of the first record format ended before its config says, though it counts as finished there."""
    if run.format > 1:
        return ""  # since then such a run says "stopped"
    config = flatten(run.config)
    steps, epochs = (_limit(config.get(f"trainer.{key}")) for key in ("max_steps", "max_epochs"))
    if run.steps is None or (steps is not None and run.steps >= steps):
        return ""
    if epochs is None:
        return f"stopped at {run.steps:,} of {steps:,} steps" if steps is not None else ""
    if run.epochs is None or run.epochs >= _ROUNDED * epochs:
        return ""
    return f"stopped at {run.steps:,} steps, in epoch {run.epochs:.3g} of {epochs}"


def _limit(value: object) -> int | None:
    """A limit of the trainer, which is absent where it is -1 or not set."""
    return value if type(value) is int and value > 0 else None


def _losses(run: RunRecord) -> tuple[float | None, float | None]:
    """The training loss at the start and at the end; of old records that of the first epoch and of the last."""
    if run.learning:
        return run.learning.get("train_loss_start"), run.learning.get("train_loss_end")
    curve: Sequence[tuple[int, float]] = run.curves.get("train_loss", ())
    return (curve[0][1], curve[-1][1]) if len(curve) > 1 else (None, None)
