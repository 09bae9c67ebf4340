"""bench/study.py counts the processes that a sweep leaves behind, and says of each goal whether it was met."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
ASKED = """
import sys
sys.path.insert(0, sys.argv[1])
import study
burn = "import time\\nwhile time.process_time() < 0.5: pass"
left = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}], start_new_session=True)"
print(study.cpu_seconds(sys.executable, "-c", left))
turns = [{"precision": "fp32", "floor": 4.0, "cell": cell, "separate": 20.0} for cell in (6.0, 8.0, 6.4)]
print(study.table(turns).splitlines()[-1])
"""


def test_processes_that_are_left_count_and_goals_are_judged() -> None:
    # A process of its own: it adopts orphans and waits for every child, which would be those of the test run.
    asked = subprocess.run([sys.executable, "-c", ASKED, str(BENCH)], capture_output=True, text=True, check=True)
    seconds, row = asked.stdout.splitlines()
    assert float(seconds) >= 0.5
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["4.00 (4.00-4.00)", "6.40 (6.00-8.00)"]
    assert cells[3:5] == ["1.60 (1.50-2.00)", "at most 1.7, met"]
    assert cells[6:] == ["3.12 (2.50-3.33)", "at least 3, met"]
