"""The unmodified W&B client in processes of its own, against a server on 127.0.0.1: no account, no network."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path.append(str(HERE))  # tests are no packages

from wandb_server.server import KEY, Server  # noqa: E402

WAIT_SECONDS = 300
COMMAND = ["${env}", "vitexp", "fit", "--config", "experiments/datasize.yaml", "--config", "${args_json_file}"]


def ended(process):
    """A process with all that it said, when it has ended."""
    out, error = process.communicate(timeout=WAIT_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


class Client:
    """A folder with the shipped experiments and sweeps, and an environment that knows this server alone."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        for name in ("experiments", "sweeps"):
            shutil.copytree(REPOSITORY / name, folder / name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
        self.environment = kept | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
        }

    def start(self, *words, **environment):
        """Starts a command in the folder."""
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words, **environment):
        """Runs a command to its end."""
        return ended(self.start(*words, **environment))

    def start_fit(self, *words, **environment):
        """Starts a training of the data-size experiment in the folder `run`."""
        config = ["--config", "experiments/datasize.yaml", "--trainer.enable_progress_bar=false", "--run.dir=run"]
        return self.start("vitexp", "fit", *config, *words, **environment)

    ended = staticmethod(ended)

    @staticmethod
    def child_of(process, word):
        """The id of the process that `process` has started with `word` in its command."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return next(int(child) for child in children if word in Path(f"/proc/{child}/cmdline").read_text())

    @staticmethod
    def wait_until(true, what):
        """Waits for something that a process in the background is to do."""
        limit = time.monotonic() + WAIT_SECONDS
        while not true():
            assert time.monotonic() < limit, f"never came true: {what}"
            time.sleep(0.02)

    def fit(self, *words, **environment):
        """Runs a training to its end."""
        return ended(self.start_fit(*words, **environment))

    def sweep(self, parameters, name="sweep.yaml"):
        """Makes a sweep with `wandb sweep`; gives ENTITY/PROJECT/SWEEP as it was printed."""
        given = {key: value if isinstance(value, list) else [value] for key, value in parameters.items()}
        block = {key: {"values": values} if len(values) > 1 else {"value": values[0]} for key, values in given.items()}
        content = {"program": "vitexp", "method": "grid", "command": COMMAND, "parameters": block}
        (self.folder / name).write_text(yaml.safe_dump(content))
        return self.make_sweep(name)

    def make_sweep(self, name):
        """`wandb sweep` on a file; gives ENTITY/PROJECT/SWEEP as it was printed."""
        done = self.run("wandb", "sweep", "--project", "demo", name)
        assert done.returncode == 0, done.stderr
        return re.search(r"wandb agent (\S+/\S+/\w+)", done.stderr)[1]


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()
    assert not running.unknown, "the client asked for what the server does not know"


@pytest.fixture(scope="session")
def make_client():
    return Client


@pytest.fixture
def client(tmp_path, server):
    return Client(tmp_path, server)
