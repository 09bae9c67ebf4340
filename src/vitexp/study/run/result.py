"""How a cell ended, as its record says it; an exit status only explains what is missing there."""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from vitexp.record import RunRecord, measured_elsewhere, write_record
from vitexp.source import package_versions, source_hash
from vitexp.study.plan import PlannedCell
from vitexp.study.run import lock
from vitexp.study.run.engines import LOST
from vitexp.study.run.worker import LOG_NAME, find_record

# Finished cells that other code has made: what differs from today's, and where their folders go to run again.

Stale = Literal["keep", "rerun"]


def differences(record: RunRecord) -> list[str]:
    """What made this record and is not what would make it today; nothing where source and versions are the same."""
    source = record.code.get("source")
    found = [] if source == source_hash() else ["other source code" if source else "source code not recorded"]
    now = package_versions()
    return found + [
        f"{name} {version}, now {now[name]}"
        for name, version in record.versions.items()
        if name in now and version != now[name]
    ]


def line(records: Sequence[RunRecord], stale: Stale) -> str | None:
    """One line about the finished cells that other code has made; None where there are none."""
    found = [kinds for record in records if (kinds := differences(record))]
    if not found:
        return None
    counts = Counter(kind for kinds in found for kind in kinds)
    words = "; ".join(f"{kind} ({count})" for kind, count in counts.items())
    what = "set aside and trained again" if stale == "rerun" else "kept (--stale rerun sets them aside and trains anew)"
    return f"{len(found)} of {len(records)} finished cells were not made by today's code: {words}; they are {what}"


def set_aside(directory: str | Path, root: str | Path) -> Path | None:
    """Moves a run directory to the folder ROOT-aside, where no table looks for records; nothing is deleted.

    Returns the new place, or None when another process holds the directory.
    """
    directory, root = Path(directory).absolute(), Path(root).absolute()
    inner = directory.relative_to(root) if directory.is_relative_to(root) else Path(directory.name)
    target = root.with_name(f"{root.name}-aside") / inner
    held = lock.acquire(directory)
    if held is None:
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        places = [target, *(target.with_name(f"{target.name}-{number}") for number in range(1, 1000))]
        free = next(place for place in places if not place.exists())
        directory.rename(free)
        (free / lock.HOLDER_NAME).unlink(missing_ok=True)
    finally:
        lock.release(held)
    return free


INTERRUPTED = 130
GO_ON = "--ckpt_path last goes on from its last checkpoint"
_CUT_OFF = ("interrupted", "ended by SIG", "killed by signal", "its worker was lost")
"""How the reason of a stopped run begins that was ended from outside; any other was ended by a rule of its own, such as
trainer.max_time, and would only end there again."""
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU}


@dataclass(frozen=True)
class Failure:
    """A cell without a finished record, why, and where to read on."""

    cell: PlannedCell
    reason: str
    retry: bool = True
    """Whether --retry is what runs it again."""

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


@dataclass(frozen=True)
class Standing:
    """Where a cell stands by what its folder holds."""

    state: Literal["absent", "cut off", "finished", "short", "failed", "not its own"]
    record: RunRecord | None = None
    reason: str = ""
    """Why a cell that has not finished cannot go on by itself."""


def standing_of(cell: PlannedCell) -> Standing:
    """Where a cell stands, whoever trained it; a record that is damaged or of another run is "not its own"."""
    try:
        record = find_record(cell.run_directory)
    except (ValueError, OSError) as error:
        return Standing("not its own", None, str(error))
    if record is None:
        return Standing("absent")
    if record.fingerprint != cell.fingerprint:
        reason = (
            f"{cell.run_directory} holds another run (fingerprint {record.fingerprint}, this cell has "
            f"{cell.fingerprint}); move it away and run the study again"
        )
        return Standing("not its own", None, reason)
    if split := measured_elsewhere(record, cell.measured_on):
        reason = f"{cell.run_directory} holds this run with other {split} images or labels than the data set has now"
        return Standing("not its own", None, f"{reason}; move it away and run the study again")
    if record.status == "finished":
        reason = _other_length(cell, record)
        return Standing("short" if reason else "finished", record, reason)
    if record.status == "running" or (record.status == "stopped" and (record.reason or "").startswith(_CUT_OFF)):
        return Standing("cut off", record)
    return Standing("failed", record, record.reason or "it did not finish")


def failure_of(cell: PlannedCell, standing: Standing, status: int | None) -> Failure:
    """Why a cell whose process ended with `status` is not finished; its record then says so too."""
    if standing.reason:
        return Failure(cell, standing.reason, standing.state == "failed")
    reason = _reason_of_status(cell, status)
    if cut_off(status):
        _close_record(cell, standing.record, "stopped", f"{reason}; {GO_ON}")
        return Failure(cell, f"{reason}; the same command goes on with it", retry=False)
    _close_record(cell, standing.record, "failed", reason)
    return Failure(cell, reason)


def cut_off(status: int | None) -> bool:
    """Whether a process was ended from outside, as by a lack of memory, and not by an error of its own."""
    return status == LOST or (status is not None and -status in _FROM_OUTSIDE)


def _other_length(cell: PlannedCell, record: RunRecord) -> str:
    """A run that ended early is no result of the cell, unless the cell's own config says when to end early."""
    planned, trainer = cell.facts.get("steps"), cell.config.get("trainer") or {}
    if not planned or record.steps in (None, planned) or trainer.get("callbacks"):
        return ""
    return (
        f"{cell.run_directory} is finished after {record.steps} steps, the study plans {planned}: it is not a result "
        "of this cell; --stale rerun sets it aside and trains the cell"
    )


def _reason_of_status(cell: PlannedCell, status: int | None) -> str:
    if status == LOST:
        return "its worker was lost with its machine or its parent process, several times"
    if status is not None and status < 0:
        killed = f"killed by signal {-status} ({signal.Signals(-status).name})"
        return f"{killed}, several times{_perhaps_memory(status)}" if cut_off(status) else killed
    log = Path(cell.run_directory) / LOG_NAME
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
    last = next((line for line in reversed(lines) if line), "it wrote nothing")
    return f"ended with status {status} and no finished record: {last}"


def _perhaps_memory(status: int) -> str:
    return ", perhaps for lack of memory" if -status == signal.SIGKILL else ""


def _close_record(cell: PlannedCell, record: RunRecord | None, status: str, reason: str) -> None:
    """So that a reader sees how a run ended whose process could not write it."""
    held = lock.acquire(cell.run_directory) if record is not None and record.status == "running" else None
    if record is not None and held is not None:
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(replace(record, status=status, reason=reason, finished=ended), cell.run_directory)
        lock.release(held)
