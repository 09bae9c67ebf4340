"""What `make` deletes, and what it never deletes unasked."""

import re
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
CACHES = (".pytest_cache", ".ruff_cache")
WORK = ("runs", "results", "shards", ".venv")


@pytest.fixture
def make(tmp_path):
    """Runs a target without a terminal in a folder that holds caches, runs, results and shards."""
    for name in CACHES + WORK:
        (tmp_path / name / "deep").mkdir(parents=True)

    def run(*words):
        command = ["make", "-f", str(MAKEFILE), "-C", str(tmp_path), *words]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.returncode, {path.name for path in tmp_path.iterdir()}

    return run


def test_clean_leaves_runs_results_and_shards(make):
    assert make("clean") == (0, set(WORK))


@pytest.mark.parametrize("answer", [[], ["CONFIRM=no"], ["CONFIRM="]])
def test_runs_are_not_deleted_without_an_answer(make, answer):
    status, left = make("clean-runs", *answer)
    assert status != 0
    assert left == set(CACHES + WORK)


def test_runs_are_deleted_when_that_is_confirmed(make):
    assert make("clean-runs", "CONFIRM=yes") == (0, {*CACHES, ".venv"})


def test_every_target_is_phony_and_explained():
    text = MAKEFILE.read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    assert targets == set(re.findall(r"^([a-z-]+):.*## ", text, re.M))
    assert targets == set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())
