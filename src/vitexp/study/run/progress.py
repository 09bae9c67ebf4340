"""What a person sees while a study runs: one live table on a terminal, one line per cell anywhere else."""

import csv
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitexp.record import RunRecord, open_metrics
from vitexp.study.resolve import ResolvedCell
from vitexp.study.run.result import Failure, Outcome

_SHOWN_FAILURES = 5


class Progress:
    """Tells about the cells of a study, which the runner counts in `outcome`."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title, self.console = title, console or Console()
        self.outcome, self.workers = Outcome(), 1
        self.durations: list[float] = []
        self.began = time.monotonic()

    def live(self) -> AbstractContextManager[Any]:
        """The live table, as long as the block lasts; none where there is no terminal."""
        if not self.console.is_terminal:
            return nullcontext()
        return Live(console=self.console, get_renderable=self.render, refresh_per_second=2)

    def note(self, line: str) -> None:
        """Says something about the whole study."""
        self._print(f"{self.title}: {line}")

    def say(self, line: str) -> None:
        """One line of the log that stands where there is no live table."""
        if not self.console.is_terminal:
            self._print(line)

    def start(self, outcome: Outcome, workers: int) -> None:
        """Takes up what earlier runs have left."""
        self.outcome, self.workers = outcome, workers
        before = f", {outcome.finished} finished before" if outcome.finished else ""
        failed = f", {len(outcome.failures)} failed before" if outcome.failures else ""
        self.say(
            f"{self.title}: {outcome.total} cells{before}{failed}, {outcome.to_train} to train on {workers} workers"
        )

    def finished(self, cell: ResolvedCell, record: RunRecord, seconds: float) -> None:
        """Tells of a cell that is finished; `seconds` is 0 for one that another runner has trained."""
        if seconds:
            self.durations.append(seconds)
        shown = open_metrics(record.metrics, cell.config)
        numbers = [f"{name} {100 * value:.2f} %" for name, value in shown.items() if name.endswith("_acc")]
        self.say(f"{self._count()} finished {cell.label}: {', '.join([*numbers, duration(seconds)])}{self._left()}")

    def failed(self, failure: Failure) -> None:
        """Tells of a cell that failed."""
        self.say(f"{self._count()} failed   {failure}")

    def end(self, found: Sequence[str] = ()) -> None:
        """The last lines: what there is now, what failed, why and where to read on, and what was `found`."""
        outcome, seconds = self.outcome, time.monotonic() - self.began
        how = "stopped; run it again to go on" if outcome.interrupted else f"done in {duration(seconds)}"
        self.note(f"{outcome.finished} of {outcome.total} cells finished, {outcome.started} started now; {how}")
        for failure in outcome.failures:
            self._print(f"failed {failure}")
        if any(failure.retry for failure in outcome.failures):
            self._print("to run failed cells again, from their first step: --retry")
        for line in (*dict.fromkeys(outcome.refused), *found):
            self._print(line)

    def seconds_left(self) -> float | None:
        """From the mean duration of the cells that this call has trained; unknown before the first."""
        if not self.durations:
            return None
        mean, now = sum(self.durations) / len(self.durations), time.monotonic()
        rest = [max(0.0, mean - (now - began)) for _, began in self.outcome.running.values()]
        return max([(sum(rest) + self.outcome.to_train * mean) / max(1, self.workers), *rest[:1]])

    def render(self) -> RenderableType:
        """The live table."""
        state, now = self.outcome, time.monotonic()
        counts = f"{state.finished} done, {len(state.running)} running, {state.to_train} waiting, "
        counts += f"{len(state.failures)} failed"
        counts += f", {len(state.elsewhere)} in another runner" if state.elsewhere else ""
        head = Text(f"{self.title}  {counts}  {duration(now - self.began)}{self._left()}")
        bar = ProgressBar(total=max(1, state.total), completed=state.ended, width=60)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("running", "epoch", "val_acc", "time"):
            table.add_column(column, justify="left" if column == "running" else "right")
        for cell, began in list(state.running.values()):  # while another thread counts
            table.add_row(cell.label, *last_numbers(Path(cell.run_directory)), duration(now - began))
        bad = [Text(f"failed {f.cell.label}: {f.reason}", style="red") for f in state.failures[-_SHOWN_FAILURES:]]
        return Group(head, Padding(bar, 0), table, *bad)  # the padding ends the line, which a bar alone does not

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        return f"[{self.outcome.ended:>{len(str(self.outcome.total))}}/{self.outcome.total}]"

    def _left(self) -> str:
        left = self.seconds_left() if self.outcome.ended < self.outcome.total else None
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
    last: dict[str, str] = {}
    with logs[-1].open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            if None not in row.values():  # else it is being written
                last |= {name: value for name, value in row.items() if value}
    return last.get("epoch", "-"), f"{100 * float(last['val_acc']):.2f} %" if "val_acc" in last else "-"
