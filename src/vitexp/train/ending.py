"""How a run ended: finished or stopped, or with which error; its exit status, and one sentence for its record."""

import signal
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vitexp.record import write_atomically
from vitexp.train.checkpoint import Interrupted

INTERRUPTED = 128
"""Exit statuses of an interrupted run: this plus the signal's number, as shells do. Lightning itself would say 0."""
TRACEBACK = "traceback.txt"
_MOST = 300
_LIBRARIES = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
_NO_RULE = (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.NON_FINITE_METRIC)


class RunFailed(RuntimeError):
    """Training broke off at an error that a library or somebody's own part has raised."""

    exit_status = 1


def ending(trainer: Any, planned: int) -> dict[str, Any]:
    """Status and reason when training has ended: "finished" after the last planned step, or by a rule of the config."""
    taken = trainer.global_step
    if taken >= planned:
        return {"status": "finished", "reason": None}
    where = f"after {taken} of {planned} planned steps"
    timers = (callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer))
    if any(seconds is not None and seconds <= 0 for seconds in timers):
        why = "the time of trainer.max_time was up; --ckpt_path last goes on from there"
        return {"status": "stopped", "reason": f"{where}: {why}"}
    stops = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]
    ruled = next((stop for stop in stops if stop.stopping_reason not in _NO_RULE), None)
    if trainer.should_stop and ruled is not None:
        rule = str(ruled.stopping_reason_message).removesuffix(" Signaling Trainer to stop.")
        return {"status": "finished", "reason": f"early stopping {where}: {rule}"}
    why = "a callback ended training" if trainer.should_stop else "the epochs were shorter than planned"
    if any(stop.stopping_reason is EarlyStoppingReason.NON_FINITE_METRIC for stop in stops):
        why = "the number that early stopping watches was not finite"
    return {"status": "stopped", "reason": f"{where}: {why}"}


def exit_code(error: BaseException) -> int:
    """128 and the signal for a run that was cut off; Lightning turns KeyboardInterrupt into SystemExit."""
    if isinstance(error, Interrupted):
        return INTERRUPTED + error.signum
    return INTERRUPTED + signal.SIGINT if isinstance(error, KeyboardInterrupt | SystemExit) else 1


def interruption(code: int, step: int, planned: int, kept_step: int, checkpoint: bool) -> str:
    """Where a run was cut off, and how it goes on; `checkpoint` says whether it has left one."""
    how = "ended by SIGTERM" if code == INTERRUPTED + signal.SIGTERM else "interrupted"
    where = "before the first step" if step == 0 else f"after step {step} of {planned}"
    if step >= planned:
        where = "after its last step, before all was measured"
    if not checkpoint:
        return f"{how} {where}; it left no checkpoint"
    return f"{how} {where}; --ckpt_path last goes on from {'there' if kept_step == step else 'an earlier checkpoint'}"


def failure(error: BaseException, step: int) -> str:
    """Why a run failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory in step {step}, use a smaller data.batch_size: {_text(error)}"
    return f"{type(error).__name__}: {_text(error)}{_place(error)}"


def raised_for(error: BaseException, step: int, directory: Path) -> BaseException:
    """What the command ends with: our own sentence as it is; anything else as one, its traceback beside the record."""
    ours = isinstance(error, ValueError) and not _place(error)
    if ours or isinstance(error, OSError) or hasattr(error, "exit_status") or not isinstance(error, Exception):
        return error
    with suppress(OSError):
        write_atomically(directory / TRACEBACK, "".join(traceback.format_exception(error)))
    return RunFailed(f"{failure(error, step)}; the traceback is in {directory / TRACEBACK}")


@contextmanager
def one_sentence() -> Iterator[None]:
    """What a trainer, callback or plugin raises when it is built is a fault of the settings. Raises: ValueError."""
    try:
        yield
    except OSError:
        raise
    except MisconfigurationException as error:
        raise ValueError(f"the trainer refuses its settings: {_text(error)}") from error
    except Exception as error:
        raised: BaseException = error
        if isinstance(error, ValueError):  # jsonargparse tries each type of an option, and lists what each says
            raised = error.__cause__ or error.__context__ or error
            if "Union subtypes" not in str(error) or raised is error:
                raise
        sentence = f"{type(raised).__name__}: {_text(raised)}{_place(raised)}"
        raise ValueError(f"the run cannot be set up: {sentence}") from error


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


def _place(error: BaseException) -> str:
    """The innermost line that is neither ours nor a library's."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    own = next((frame for frame in frames if not frame.filename.startswith(_LIBRARIES)), None)
    return f" ({own.filename}:{own.lineno})" if own else ""
