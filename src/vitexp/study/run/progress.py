"""What a person sees while a study runs: one live table on a terminal, one line per cell anywhere else."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitexp.record import RunRecord
from vitexp.study.plan import PlannedCell
from vitexp.study.run.result import Failure, Outcome

Running = Sequence[tuple[PlannedCell, float]]
_TAIL_BYTES = 4096
_SHOWN_FAILURES = 5


class Progress:
    """Counts cells and tells about them; times are of the monotonic clock, in seconds."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = title
        self.console = console or Console()
        self.live: Live | None = None
        self.total = self.done = self.workers = 0
        self.failures: list[Failure] = []
        self.durations: list[float] = []
        self.state: tuple[Running, int, int] = ((), 0, 0)
        self.began = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=2)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def plan(self, cells: int) -> None:
        """Says what is done before the first cell can start, which takes some seconds."""
        self.note(f"parsing {cells} cells before anything trains" if cells else None)

    def note(self, line: str | None) -> None:
        """Says something about the whole study before it starts, if there is something to say."""
        if line:
            self._print(f"{self.title}: {line}")

    def start(self, finished: int, failures: Sequence[Failure], waiting: int, workers: int) -> None:
        """Takes up what earlier runs have left."""
        self.done, self.failures, self.workers = finished, list(failures), workers
        self.total = finished + len(failures) + waiting
        before = f", {finished} finished before" if finished else ""
        failed = f", {len(failures)} failed before" if failures else ""
        self.say(f"{self.title}: {self.total} cells{before}{failed}, {waiting} to train on {workers} workers")

    def show(self, running: Running, waiting: int, elsewhere: int) -> None:
        """Takes up where the cells stand now."""
        self.state = (running, waiting, elsewhere)

    def finished(self, cell: PlannedCell, record: RunRecord, seconds: float) -> None:
        """Tells of a cell that is finished; `seconds` is 0 for one that another runner has trained."""
        self.done += 1
        if seconds:
            self.durations.append(seconds)
        numbers = [f"{name} {100 * value:.2f} %" for name, value in record.metrics.items() if name.endswith("_acc")]
        self.say(f"{self._count()} finished {cell.label}: {', '.join([*numbers, duration(seconds)])}{self._left()}")

    def failed(self, failure: Failure) -> None:
        """Tells of a cell that failed."""
        self.failures.append(failure)
        self.say(f"{self._count()} failed   {failure.cell.label}: {failure.reason} (log: {failure.log})")

    def end(self, outcome: Outcome, found: Sequence[str] = ()) -> None:
        """The last lines: what there is now, what failed, why and where to read on, and what was `found`."""
        words = f"{outcome.finished} of {self.total} cells finished, {outcome.started} started now"
        how = "stopped; run it again to go on" if outcome.interrupted else f"done in {duration(outcome.seconds)}"
        self._print(f"{self.title}: {words}; {how}")
        for failure in outcome.failures:
            self._print(f"failed {failure.cell.label}: {failure.reason} (log: {failure.log})")
        if any(failure.retry for failure in outcome.failures):
            self._print("to run failed cells again, from their first step: --retry")
        for line in found:
            self._print(line)

    def seconds_left(self) -> float | None:
        """From the mean duration of the cells that this call has trained; unknown before the first."""
        running, waiting, _ = self.state
        if not self.durations:
            return None
        mean, now = sum(self.durations) / len(self.durations), time.monotonic()
        rest = [max(0.0, mean - (now - began)) for _, began in running]
        return max([(sum(rest) + waiting * mean) / max(1, self.workers), *rest[:1]])

    def render(self) -> RenderableType:
        """The live table."""
        running, waiting, elsewhere = self.state
        counts = f"{self.done} done, {len(running)} running, {waiting} waiting, {len(self.failures)} failed"
        counts += f", {elsewhere} in another runner" if elsewhere else ""
        head = Text(f"{self.title}  {counts}  {duration(time.monotonic() - self.began)}{self._left()}")
        bar = ProgressBar(total=max(1, self.total), completed=self.done + len(self.failures), width=60)
        line = Padding(bar, 0)  # ends the line, which a bar alone does not
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("running", "epoch", "val_acc", "time"):
            table.add_column(column, justify="left" if column == "running" else "right")
        for cell, began in running:
            epoch, accuracy = last_numbers(Path(cell.run_directory))
            table.add_row(cell.label, epoch, accuracy, duration(time.monotonic() - began))
        bad = [Text(f"failed {f.cell.label}: {f.reason}", style="red") for f in self.failures[-_SHOWN_FAILURES:]]
        return Group(head, line, table, *bad)

    def say(self, line: str) -> None:
        """One line of the log that stands where there is no live table."""
        if self.live is None:
            self._print(line)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        width = len(str(self.total))
        return f"[{self.done + len(self.failures):>{width}}/{self.total}]"

    def _left(self) -> str:
        left = self.seconds_left() if self.done + len(self.failures) < self.total else None
        return "" if left is None else f", about {duration(left)} left"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def last_numbers(directory: Path) -> tuple[str, str]:
    """The newest epoch and validation accuracy in the run's CSV log, or a dash for what is not there yet."""
    logs = sorted(directory.glob("metrics/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "-", "-"
    with logs[-1].open("rb") as file:
        header = file.readline().decode().strip().split(",")
        file.seek(max(file.tell(), logs[-1].stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    rows = [row for row in csv.DictReader(lines, fieldnames=header) if None not in row.values()]
    epoch, accuracy = (_last(rows, name) for name in ("epoch", "val_acc"))
    return epoch or "-", f"{100 * float(accuracy):.2f} %" if accuracy else "-"


def _last(rows: Sequence[dict[str, str]], name: str) -> str:
    return next((row[name] for row in reversed(rows) if row.get(name)), "")
