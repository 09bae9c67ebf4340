"""How a cell ended, as its record says it; an exit status only explains what is missing there."""

import signal
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from vitexp.record import RunRecord, write_record
from vitexp.study import lock
from vitexp.study.engine import LOST
from vitexp.study.plan import PlannedCell
from vitexp.study.worker import LOG_NAME, find_record

INTERRUPTED = 130


@dataclass(frozen=True)
class Failure:
    """A cell without a finished record, why, and where to read on."""

    cell: PlannedCell
    reason: str

    @property
    def log(self) -> Path:
        """What the cell's process has said."""
        return Path(self.cell.run_directory) / LOG_NAME


@dataclass(frozen=True)
class Outcome:
    """What a call of the runner came to."""

    finished: int
    """Cells that have a finished record, whoever trained them."""
    started: int
    """Cells that this call has begun to train."""
    failures: tuple[Failure, ...]
    interrupted: bool
    seconds: float

    @property
    def exit_status(self) -> int:
        """0 when every cell is finished, 1 when some failed, 130 when it was stopped."""
        return INTERRUPTED if self.interrupted else int(bool(self.failures))


def record_of(cell: PlannedCell) -> RunRecord | None:
    """The record of a cell, if it has one.

    Raises: ValueError when its directory holds another run.
    """
    record = find_record(cell.run_directory)
    if record is not None and record.fingerprint != cell.fingerprint:
        raise ValueError(
            f"{cell.run_directory} holds another run (fingerprint {record.fingerprint}, cell {cell.label!r} has "
            f"{cell.fingerprint}); move it away"
        )
    return record


def failure_of(cell: PlannedCell, record: RunRecord | None, status: int | None) -> Failure:
    """Why a cell whose process ended with `status` is not finished; one that was killed gets its record closed."""
    if record is not None and record.status == "failed":
        return Failure(cell, record.reason or "it failed")
    reason = _reason_of_status(cell, status)
    if record is not None:
        _close_record(cell, record, reason)
    return Failure(cell, reason)


def _reason_of_status(cell: PlannedCell, status: int | None) -> str:
    if status == LOST:
        return "its worker was lost with its machine, several times"
    if status is not None and status < 0:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    log = Path(cell.run_directory) / LOG_NAME
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
    last = next((line for line in reversed(lines) if line), "it wrote nothing")
    return f"ended with status {status} and no finished record: {last}"


def _close_record(cell: PlannedCell, record: RunRecord, reason: str) -> None:
    held = lock.acquire(cell.run_directory)
    if held is not None:
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(replace(record, status="failed", reason=reason, finished=ended), cell.run_directory)
        lock.release(held)
