"""Shared by the whole suite: no network, no accounts, one thread, the torchvision guard first."""

import logging
import os
import signal
import sys
from pathlib import Path

os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm, torchmetrics and lightning)

torch.set_num_threads(1)
# A shell that runs the suite in its background has it ignore SIGINT, and with it all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no failure; and the same commit passes twice: new cases are for `make test-slow` to find.
hypothesis.settings.register_profile("house", deadline=None, derandomize="slow" not in " ".join(sys.argv))
hypothesis.settings.load_profile("house")
REPOSITORY = Path(__file__).resolve().parent.parent
TORCH_FLAGS = torch.set_default_dtype, torch.set_num_threads, torch.use_deterministic_algorithms


def pytest_terminal_summary(terminalreporter, config):
    """The order of the tests, which `pytest -q` does not say in its header."""
    terminalreporter.write_line(f"order of the tests: --randomly-seed={config.getoption('randomly_seed', None)}")


@pytest.fixture(scope="session", autouse=True)
def _repository_stays_clean():
    """What the tests write, they write elsewhere."""
    before = {path.name for path in REPOSITORY.iterdir()}
    yield
    assert {path.name for path in REPOSITORY.iterdir()} - before <= {".hypothesis", ".pytest_cache"}


@pytest.fixture(scope="session")
def _home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    for name in ("experiments", "sweeps"):
        (home / name).symlink_to(REPOSITORY / name)
    return home


@pytest.fixture(autouse=True)
def _away(_home, monkeypatch):
    """What a run writes beside itself, such as the shards of a bare word, is not left in the repository."""
    monkeypatch.chdir(_home)


@pytest.fixture(autouse=True)
def _as_if_alone():
    """Each test begins with the same draws and leaves no trace in the process, so that their order does not matter."""
    torch.manual_seed(0)
    _let_lightning_speak()  # a fixture of the session may have run a command before the first test
    # The client of W&B keeps the address of its service there; a test that ended the service must not leave it behind.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    flags = torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    for name in os.environ.keys() - environment.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(environment)
    _let_lightning_speak()
    for put_back, flag in zip(TORCH_FLAGS, flags, strict=True):
        put_back(flag)


def _let_lightning_speak():
    """A command of vitexp silences some of Lightning's loggers for the rest of its process."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith(("lightning.pytorch.", "lightning.fabric.")) and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, where there is one."""
    folder = Path(os.environ.get("VITEXP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent ({folder}); set VITEXP_DATA to their folder")
    return folder
