"""Whether training came to its end: the last planned step was taken, or a rule of the config's own ended it."""

from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

_NO_RULE = (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.NON_FINITE_METRIC)


def ending(trainer: Any, planned: int) -> dict[str, Any]:
    """Status and reason of a run whose training has just ended."""
    taken = trainer.global_step
    if taken >= planned:
        return {"status": "finished", "reason": None}
    where = f"after {taken} of {planned} planned steps"
    cause, rule = _cause(trainer), _rule(trainer)
    if cause is None and rule is not None:
        return {"status": "finished", "reason": f"early stopping {where}: {rule}"}
    more = "" if cause is None else "; --ckpt_path last goes on from there"
    return {"status": "stopped", "reason": f"{where}: {cause or _unknown(trainer)}{more}"}


def _cause(trainer: Any) -> str | None:
    """What cut training short although no plan says so."""
    timers = (callback for callback in trainer.callbacks if isinstance(callback, Timer))
    left = [seconds for timer in timers if (seconds := timer.time_remaining()) is not None]
    return "the time of trainer.max_time was up" if any(seconds <= 0 for seconds in left) else None


def _rule(trainer: Any) -> str | None:
    """What early stopping said when it ended training; a number that is not finite is no plan."""
    said = [c for c in trainer.callbacks if isinstance(c, EarlyStopping) and c.stopping_reason not in _NO_RULE]
    if not trainer.should_stop or not said:
        return None
    return str(said[0].stopping_reason_message).removesuffix(" Signaling Trainer to stop.")


def _unknown(trainer: Any) -> str:
    if any(getattr(callback, "stopping_reason", None) is _NO_RULE[1] for callback in trainer.callbacks):
        return "the number that early stopping watches was not finite"
    return "a callback ended training" if trainer.should_stop else "the epochs were shorter than planned"
