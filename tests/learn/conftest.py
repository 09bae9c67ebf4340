"""One set of digits and one door for the runs of this floor's tests."""

from pathlib import Path

import pytest

from vitexp import cli
from vitexp.data import write


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return write.make("digits", tmp_path_factory.mktemp("shards") / "digits")


@pytest.fixture(scope="session")
def _home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    for name in ("experiments", "sweeps"):
        (home / name).symlink_to(Path(__file__).parents[2] / name)
    return home


@pytest.fixture(autouse=True)
def _away(_home, monkeypatch):
    """What a run writes beside itself, such as the shards of a bare word, is not left in the repository."""
    monkeypatch.chdir(_home)


@pytest.fixture
def door(digits, tmp_path, monkeypatch):
    """Runs a verb on the digits in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *words):
        try:
            return cli.main([verb, f"--data.shards={digits}", *words])
        except SystemExit as error:
            return error.code

    return run
