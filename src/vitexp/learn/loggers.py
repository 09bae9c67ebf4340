"""Where a run's numbers go while it runs: CSV always, W&B when it can. No logger may end or stall a run."""

import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitexp.learn.config import RunConfig
from vitexp.record import write_atomically

FINISH_SECONDS = 300.0
INIT_SECONDS = 30.0
_ID_FILE = "wandb_id.txt"


def build_loggers(run: RunConfig, directory: Path, *, group: str, name: str, resumed: bool) -> list[Logger]:
    """CSV first, because the trainer's own folder follows the first logger; W&B second, unless it is off."""
    loggers: list[Logger] = [CSVLogger(save_dir=directory, name="metrics")]
    mode = wandb_mode(run)
    if mode != "disabled":
        loggers.append(RunLogger(run, directory, mode=mode, group=group, name=name, resumed=resumed))
    return loggers


def wandb_mode(run: RunConfig) -> str:
    """The W&B mode this run will use: online, offline or disabled."""
    if run.wandb != "auto":
        return {"off": "disabled"}.get(run.wandb, run.wandb)
    spoken = os.environ.get("WANDB_MODE", "")
    if spoken:
        return {"dryrun": "offline"}.get(spoken, spoken)
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    """Whether the client knows an API key; nothing is asked of a person or of the network."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
        print(f"W&B: {error}; logging offline", file=sys.stderr)
        return False


class RunLogger(WandbLogger):
    """The W&B logger, made so that a missing key, server or network leaves an offline run and not a dead one."""

    def __init__(self, run: RunConfig, directory: Path, *, mode: str, group: str, name: str, resumed: bool) -> None:
        super().__init__(
            name=name, save_dir=directory, project=run.project, version=run_id(directory, resumed), group=group
        )
        self.mode = mode

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at its first use."""
        if self._experiment is None:
            self._experiment = _start(self._wandb_init, self.mode)
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    def describe(self) -> tuple[str, str] | None:
        """Kind and place of the run, for the last lines a person reads; None when it never started."""
        started = self._experiment
        if started is None or getattr(started, "disabled", False):
            return None
        folder = str(Path(started.dir).parent)
        if started.offline:
            return "W&B offline", f"{folder}   (upload: wandb sync {folder})"
        return "W&B online", str(started.url)

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run; waits for the server no longer than a few minutes."""
        if self._experiment is not None and not getattr(self._experiment, "disabled", False):
            self._experiment.finish(exit_code=exit_code)


def run_id(directory: Path, resumed: bool) -> str:
    """The id of the W&B run, kept from the start on so that a resumed run continues it."""
    path = directory / _ID_FILE
    if resumed and path.is_file():
        return path.read_text().strip()
    made = uuid.uuid4().hex[:12]
    if getattr(rank_zero_only, "rank", 0) == 0:
        write_atomically(path, made + "\n")
    return made


def _start(arguments: Mapping[str, Any], mode: str) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS)
    arguments = {name: value for name, value in arguments.items() if name != "anonymous"}
    try:
        return wandb.init(**arguments, mode=cast(Any, mode), settings=settings)
    except (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
        print(f"W&B: {' '.join(str(error).split())}; logging offline", file=sys.stderr)
        wandb.teardown()  # the client's service still holds the id of the run that it could not start
        return wandb.init(**arguments, mode="offline", settings=settings)
