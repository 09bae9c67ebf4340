"""Whether a run trained, and for as long as it was meant to: what its record shows."""

import math
from collections.abc import Iterable

from vitexp.record import RunRecord, flatten, option

_ERRORS = 2.0
"""Standard errors above the chance level up to which an accuracy cannot be distinguished from guessing."""
_TRAINED = 0.98
"""Share of what there is to learn, between the loss of guessing and the least one, that is left to a run of which it is
said that it learned nothing."""
_RISEN = 1.5
"""How many times its start the loss of a run from other weights may be at the end, where guessing has no known loss."""
_SURE = 4.0
"""Standard errors above the chance level from which on a network does better than guessing."""
_ROUNDED = 0.98
"""Share of the epochs from which on they count as done: the last batch of an epoch may be dropped."""


def why_untrained(run: RunRecord) -> str:
    """What shows that a run did not train; empty for a run that did, and for one whose record does not say.

    Told by training alone: a choice of runs by their test accuracy would be a choice of the result. The loss must fall
    below where it began, and below what guessing costs by more than a fiftieth of what there is to learn, unless the
    validation slice shows that the network does better than guessing. A run from other weights may begin where it ends.
    bench/trained.py simulates how often that is wrong: of a collapse to one answer it misses some on a long tail of
    classes, where the last tenth of the steps is short and by chance holds few of the rare ones.
    """
    if run.steps == 0:
        return "it took no step"
    start, end = (run.learning.get(f"train_loss_{when}") for when in ("start", "end"))
    curve = run.curves.get("train_loss", [])
    if not run.learning and len(curve) > 1:  # an old record, with the losses of its first epoch and of its last
        start, end = curve[0][1], curve[-1][1]
    if start is None or end is None:
        guesses = _is_above_chance(run, errors=0.0) is False
        return f"validation accuracy {100 * run.metrics['val_acc']:.1f} %, a guess" if guesses else ""
    guessing = _loss_of_guessing(run)
    learned = guessing is not None and end < guessing - (1 - _TRAINED) * (guessing - _least_loss(run))
    goes_on = bool(option(run.config, "run.init")) and (learned if guessing else end < _RISEN * start)
    if not end < start and not goes_on:  # NaN is neither
        return f"training loss {start:.4g} at the start, {end:.4g} at the end"
    if guessing is None or learned or _is_above_chance(run):
        return ""
    return f"training loss {end:.4g} at the end, and guessing costs {guessing:.4g}"


def _loss_of_guessing(run: RunRecord) -> float | None:
    """The training loss of giving the classes' shares, or of equal ones in an old record; None without such a loss."""
    classes, loss = run.data.get("classes"), option(run.config, "model.loss", "softmax")
    if option(run.config, "model.objective", "classify") != "classify" or not classes or classes < 2:
        return None
    equal = {"softmax": math.log(classes), "sigmoid": math.log(classes) - (classes - 1) * math.log1p(-1 / classes)}
    return run.learning.get("chance_loss", equal.get(loss))


def _least_loss(run: RunRecord) -> float:
    """The training loss of a network that knows every answer: smoothed labels leave it some."""
    classes, smoothing = run.data.get("classes") or 0, option(run.config, "model.label_smoothing", 0.0)
    if not smoothing or classes < 2:
        return 0.0
    if option(run.config, "model.loss", "softmax") == "sigmoid":
        return classes * -sum(share * math.log(share) for share in (smoothing, 1 - smoothing))
    rest = smoothing / classes
    return -(1 - smoothing + rest) * math.log(1 - smoothing + rest) - (classes - 1) * rest * math.log(rest)


def _is_above_chance(run: RunRecord, errors: float = _SURE) -> bool | None:
    """Whether the validation slice shows that a network does better than guessing; None where it does not say."""
    accuracy, chance, images = run.metrics.get("val_acc"), chance_of(run), run.data.get("val_images")
    if accuracy is None or chance is None or (errors and not images):
        return None
    return accuracy > chance + errors * math.sqrt(chance * (1 - chance) / (images or 1))


def chance_of(run: RunRecord) -> float | None:
    """The accuracy of guessing: the share of the largest class, or an equal share of all classes."""
    classes = run.data.get("classes")
    return run.learning.get("chance_acc", 1 / classes if classes and classes > 1 else None)


def at_chance(accuracy: float, chance: float, run: RunRecord) -> bool:
    """Whether an accuracy cannot be distinguished from guessing, by the number of test images where it is known."""
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
    limits = (flatten(run.config).get(f"trainer.{key}") for key in ("max_steps", "max_epochs"))
    steps, epochs = (value if type(value) is int and value > 0 else None for value in limits)
    if run.steps is None or (steps is not None and run.steps >= steps):
        return ""
    if epochs is None:
        return f"stopped at {run.steps:,} of {steps:,} steps" if steps is not None else ""
    if run.epochs is None or run.epochs >= _ROUNDED * epochs:
        return ""
    return f"stopped at {run.steps:,} steps, in epoch {run.epochs:.3g} of {epochs}"


def finished_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records that hold the result of a whole training."""
    return [record for record in records if record.status == "finished" and not cut_short(record)]
