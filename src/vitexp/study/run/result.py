"""How a cell ended, as its record says it; an exit status only explains what is missing there."""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from vitexp.record import RunRecord, measured_elsewhere, write_record
from vitexp.source import package_versions, source_hash
from vitexp.study.arm import untrained
from vitexp.study.resolve import ResolvedCell
from vitexp.study.run import lock
from vitexp.study.run.processes import LOG_NAME, LOST, find_record
from vitexp.study.select import select
from vitexp.study.spec import Study

_CUT_OFF = ("interrupted", "ended by SIG", "killed by signal", "its worker was lost")
"""How the reason of a stopped run begins that was ended from outside; any other was ended by a rule of its own, such as
trainer.max_time, and would only end there again."""
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU}


@dataclass(frozen=True)
class Failure:
    """A cell without a finished record, why, and where to read on."""

    cell: ResolvedCell
    reason: str
    retry: bool = True
    """Whether --retry is what runs it again."""

    @property
    def log(self) -> Path:
        """What the cell's process has said."""
        return Path(self.cell.run_directory) / LOG_NAME

    def __str__(self) -> str:
        return f"{self.cell.label}: {self.reason} (log: {self.log})"


def untrained_lines(study: Study, root: str | Path) -> list[str]:
    """A line for each arm of which runs did not train: how many, which seeds, and what shows it."""
    try:
        arms = select(study, root).arms
    except ValueError as error:
        return [f"whether all runs trained is not known: {error}"]
    return [line for arm in arms for line in untrained([arm])]


@dataclass
class Outcome:
    """Where the cells of a study stand while they run, each counted once; at the end, what the call came to."""

    total: int = 0
    finished: int = 0
    """Cells that have a finished record, whoever trained them."""
    started: int = 0
    """Cells that this call has begun to train."""
    waiting: list[ResolvedCell] = field(default_factory=list)
    unchosen: int = 0
    """Cells that a search may still choose."""
    running: dict[str, tuple[ResolvedCell, float]] = field(default_factory=dict)
    """By run directory, with the time of the monotonic clock at which they began."""
    elsewhere: list[ResolvedCell] = field(default_factory=list)
    """Cells in the hands of another runner."""
    failures: list[Failure] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Why, for each cell of an arm that failed its certificate."""
    interrupted: bool = False

    @property
    def ended(self) -> int:
        """Cells that are finished, failed or refused."""
        return self.finished + len(self.failures) + len(self.refused)

    @property
    def to_train(self) -> int:
        """Cells that wait, those that are not chosen yet included."""
        return len(self.waiting) + self.unchosen

    @property
    def exit_status(self) -> int:
        """0 when every cell is finished, 1 when some failed or were refused, 130 when it was stopped."""
        return 130 if self.interrupted else int(bool(self.failures or self.refused))


Stale = Literal["keep", "rerun"]
"""What becomes of finished cells that other code has made."""


@dataclass(frozen=True)
class Standing:
    """Where a cell stands by what its folder holds."""

    state: Literal["absent", "cut off", "finished", "short", "failed", "not its own"]
    record: RunRecord | None = None
    reason: str = ""
    """Why a cell that has not finished cannot go on by itself."""

    @property
    def open(self) -> bool:
        """Whether the cell is to be trained, or to be trained on."""
        return self.state in ("absent", "cut off")

    def to_rerun(self, stale: Stale) -> bool:
        """Whether a finished record is to be set aside: other code made it, or it has another length than the cell."""
        if stale == "keep" or self.record is None:
            return False
        return self.state == "short" or (self.state == "finished" and bool(differences(self.record)))


def standing_of(cell: ResolvedCell) -> Standing:
    """Where a cell stands, whoever trained it; a record that is damaged or of another run is "not its own"."""
    folder = cell.run_directory
    try:
        record = find_record(folder)
    except (ValueError, OSError) as error:
        return Standing("not its own", None, str(error))
    if record is None:
        return Standing("absent")
    foreign = ""
    if record.fingerprint != cell.fingerprint:
        foreign = f"another run (fingerprint {record.fingerprint}, this cell has {cell.fingerprint})"
    elif split := measured_elsewhere(record, cell.measured_on):
        foreign = f"this run with other {split} images or labels than the data set has now"
    if foreign:
        return Standing("not its own", None, f"{folder} holds {foreign}; move it away and run the study again")
    if record.status == "finished":
        reason = _other_length(cell, record)
        return Standing("short" if reason else "finished", record, reason)
    if record.status == "running" or (record.status == "stopped" and (record.reason or "").startswith(_CUT_OFF)):
        return Standing("cut off", record)
    return Standing("failed", record, record.reason or "it did not finish")


def failure_of(cell: ResolvedCell, standing: Standing, status: int | None) -> Failure:
    """Why a cell whose process ended with `status` is not finished; its record then says so too."""
    if standing.reason:
        return Failure(cell, standing.reason, standing.state == "failed")
    reason = _reason_of_status(cell, status)
    if cut_off(status):
        _close_record(cell, standing.record, "stopped", f"{reason}; --ckpt_path last goes on from its last checkpoint")
        return Failure(cell, f"{reason}; the same command goes on with it", retry=False)
    _close_record(cell, standing.record, "failed", reason)
    return Failure(cell, reason)


def cut_off(status: int | None) -> bool:
    """Whether a process was ended from outside, as by a lack of memory, and not by an error of its own."""
    return status == LOST or (status is not None and -status in _FROM_OUTSIDE)


def _other_length(cell: ResolvedCell, record: RunRecord) -> str:
    """A run that ended early is no result of the cell, unless the cell's own config says when to end early."""
    steps, trainer = cell.facts.get("steps"), cell.config.get("trainer") or {}
    if not steps or record.steps in (None, steps) or trainer.get("callbacks"):
        return ""
    what = f"{cell.run_directory} is finished after {record.steps} steps, the study plans {steps}"
    return f"{what}: it is not a result of this cell; --stale rerun sets it aside and trains the cell"


def _reason_of_status(cell: ResolvedCell, status: int | None) -> str:
    if status == LOST:
        return "its worker was lost with its machine or its parent process, several times"
    if status is not None and status < 0:
        often = ", several times" if cut_off(status) else ""
        memory = ", perhaps for lack of memory" if -status == signal.SIGKILL else ""
        return f"killed by signal {-status} ({signal.Signals(-status).name}){often}{memory}"
    log = Path(cell.run_directory) / LOG_NAME
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    return f"ended with status {status} and no finished record: {last}"


def _close_record(cell: ResolvedCell, record: RunRecord | None, status: str, reason: str) -> None:
    """So that a reader sees how a run ended whose process could not write it."""
    if record is not None and record.status == "running" and (held := lock.acquire(cell.run_directory)):
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(replace(record, status=status, reason=reason, finished=ended), cell.run_directory)
        held.release()


# Finished cells that other code has made: what differs from today's, and where their folders go to run again.


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


def stale_line(records: Sequence[RunRecord], stale: Stale) -> str:
    """One line about the finished cells that other code has made; empty where there are none."""
    found = [kinds for record in records if (kinds := differences(record))]
    if not found:
        return ""
    counts = Counter(kind for kinds in found for kind in kinds)
    listed = "; ".join(f"{kind} ({count})" for kind, count in counts.items())
    what = "set aside and trained again" if stale == "rerun" else "kept (--stale rerun sets them aside and trains anew)"
    return f"{len(found)} of {len(records)} finished cells were not made by today's code: {listed}; they are {what}"


def set_aside(directory: str | Path, root: str | Path) -> Path | None:
    """Moves a run directory to the folder ROOT-aside, where no table looks for records; nothing is deleted.

    Returns the new folder, or None when another process holds the directory.
    """
    directory, root = Path(directory).absolute(), Path(root).absolute()
    inner = directory.relative_to(root) if directory.is_relative_to(root) else Path(directory.name)
    target = root.with_name(f"{root.name}-aside") / inner
    held = lock.acquire(directory)
    if held is None:
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folders = [target, *(target.with_name(f"{target.name}-{number}") for number in range(1, 1000))]
        free = next(folder for folder in folders if not folder.exists())
        directory.rename(free)
        (free / lock.HOLDER_NAME).unlink(missing_ok=True)
    finally:
        held.release()
    return free
