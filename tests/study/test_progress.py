import io
import re
import time

import pytest
from rich.console import Console

from vitexp.record import RunRecord
from vitexp.study.cells import Cell
from vitexp.study.resolve import ResolvedCell
from vitexp.study.run.progress import Progress, duration, last_numbers
from vitexp.study.run.result import Failure, Outcome


def cell(folder, index=0, config=None):
    made = Cell(index, {}, {}, f"seed={index}", index)
    place = str(folder / f"seed-{index}")
    return ResolvedCell(**vars(made), argv=[], fingerprint="f", name="c", run_directory=place, config=config or {})


def running(*began):
    """Cells in training, by when they began."""
    return {str(made.run_directory): (made, when) for made, when in began}


def record(**metrics):
    return RunRecord(study="s", cell="c", seed=0, fingerprint="f", status="finished", config={}, metrics=metrics)


def log(folder, text):
    path = folder / "metrics" / "version_0" / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 01 s"),
        (3599, "59 min 59 s"),
        (3660, "1 h 01 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_newest_numbers_come_from_the_end_of_the_log(tmp_path):
    assert last_numbers(tmp_path) == ("-", "-")
    log(tmp_path, "epoch,step,train_loss,val_acc\n")
    assert last_numbers(tmp_path) == ("-", "-")
    rows = "".join(f"{epoch},{epoch},0.5,\n{epoch},{epoch},,{epoch / 1000}\n" for epoch in range(500))
    log(tmp_path, f"epoch,step,train_loss,val_acc\n{rows}500,500,0.5,\n")
    assert last_numbers(tmp_path) == ("500", "49.90 %")


def test_a_row_that_is_being_written_is_not_read(tmp_path):
    log(tmp_path, "epoch,step,train_loss,val_acc\n1,1,,0.5\n2,2,,0.9\n77")
    assert last_numbers(tmp_path) == ("2", "90.00 %")


def test_without_a_terminal_every_cell_is_a_line(tmp_path):
    out = io.StringIO()
    progress = Progress("pos", Console(file=out, width=40))
    outcome = Outcome(6, finished=3, waiting=[None, None], failures=[Failure(cell(tmp_path, 8), "NaN")])
    with progress.live():
        progress.start(outcome, 2)
        outcome.finished += 1
        progress.finished(cell(tmp_path, 1), record(val_acc=0.5, test_acc=0.25, test_loss=2.0), 3.0)
        outcome.failures.append(Failure(cell(tmp_path, 2), "killed by signal 9 (SIGKILL)"))
        progress.failed(outcome.failures[-1])
    lines = out.getvalue().splitlines()
    assert lines[0] == "pos: 6 cells, 3 finished before, 1 failed before, 2 to train on 2 workers"
    assert lines[1].startswith("[5/6] finished seed=1: val_acc 50.00 %, test_acc 25.00 %, 3 s")
    assert lines[2] == f"[6/6] failed   seed=2: killed by signal 9 (SIGKILL) (log: {tmp_path}/seed-2/fit.log)"
    assert len(lines) == 3


def test_the_line_of_a_candidate_has_no_number_of_the_test_images(tmp_path):
    out = io.StringIO()
    progress = Progress("pos", Console(file=out))
    progress.start(Outcome(1, finished=1), 1)
    tuned = cell(tmp_path, 1, {"study": {"tune": ["model.lr"]}})
    progress.finished(tuned, record(val_acc=0.5, test_acc=0.25, limited_test_acc=0.25, test_top5_acc=0.75), 3.0)
    assert out.getvalue().splitlines()[1] == "[1/1] finished seed=1: val_acc 50.00 %, 3 s"


def test_the_last_line_speaks_of_no_time_left(tmp_path):
    out = io.StringIO()
    progress = Progress("pos", Console(file=out))
    outcome = Outcome(2, running=running((cell(tmp_path, 1), time.monotonic())), unchosen=1)
    progress.start(outcome, 1)
    for index in (1, 2):
        outcome.finished = index
        progress.finished(cell(tmp_path, index), record(), 5.0)
    lines = out.getvalue().splitlines()
    assert re.fullmatch(r"\[1/2\] finished seed=1: 5 s, about \d+ s left", lines[1])
    assert lines[2] == "[2/2] finished seed=2: 5 s"


def test_the_end_lists_what_failed_and_what_to_do(tmp_path):
    out = io.StringIO()
    progress = Progress("pos", Console(file=out, force_terminal=True, color_system=None, width=300))
    failure = Failure(cell(tmp_path, 2), "[x] out of memory")
    progress.start(Outcome(5, finished=4, started=2, failures=[failure]), 2)
    progress.began -= 75.0
    progress.end()
    assert out.getvalue().splitlines() == [
        "pos: 4 of 5 cells finished, 2 started now; done in 1 min 15 s",
        f"failed seed=2: [x] out of memory (log: {tmp_path}/seed-2/fit.log)",
        "to run failed cells again, from their first step: --retry",
    ]
    progress.start(Outcome(5, finished=4, started=1, interrupted=True), 2)
    progress.end()
    assert out.getvalue().splitlines()[3:] == [
        "pos: 4 of 5 cells finished, 1 started now; stopped; run it again to go on"
    ]


def test_time_left_is_reckoned_from_finished_cells(tmp_path):
    progress = Progress("pos", Console(file=io.StringIO()))
    outcome = Outcome(7, running=running((cell(tmp_path, 1), time.monotonic())), unchosen=6)
    progress.start(outcome, 2)
    assert progress.seconds_left() is None
    progress.finished(cell(tmp_path, 3), record(), 20.0)
    progress.finished(cell(tmp_path, 4), record(), 40.0)
    progress.finished(cell(tmp_path, 5), record(), 0.0)  # another runner's: tells nothing about our pace
    half_done = time.monotonic() - 15.0
    outcome.running = running((cell(tmp_path, 1), half_done), (cell(tmp_path, 2), half_done))
    outcome.unchosen = 5
    assert progress.seconds_left() == pytest.approx((15 + 15 + 5 * 30) / 2, abs=0.5)
    outcome.running, outcome.unchosen = running((cell(tmp_path, 1), time.monotonic() - 10)), 0
    assert progress.seconds_left() == pytest.approx(20, abs=0.5)


def test_on_a_terminal_there_is_one_live_table(tmp_path):
    out = io.StringIO()
    log(tmp_path / "seed-1", "epoch,step,train_loss,val_acc\n4,1,,0.875\n")
    progress = Progress("pos", Console(file=out, force_terminal=True, width=120))
    outcome = Outcome(7, finished=3, unchosen=1, elsewhere=[None, None])
    outcome.running = running((cell(tmp_path, 1), time.monotonic() - 65))
    with progress.live():
        progress.start(outcome, 2)
        outcome.failures.append(Failure(cell(tmp_path, 2), "out of memory"))
        progress.failed(outcome.failures[-1])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "pos  3 done, 1 running, 1 waiting, 1 failed, 2 in another runner" in text
    assert re.search(r"seed=1 +4 +87\.50 % +1 min 05 s", text)
    assert "failed seed=2: out of memory" in text
    assert re.search(r"^ *running +epoch +val_acc +time *$", text, re.M)
    assert "[4/7]" not in text
