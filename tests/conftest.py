"""Shared by the whole suite: no network, no accounts, one thread, the torchvision guard first."""

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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, where there is one."""
    folder = Path(os.environ.get("VITEXP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent ({folder}); set VITEXP_DATA to their folder")
    return folder
