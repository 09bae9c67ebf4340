"""Where a run's numbers go while it runs: CSV always, W&B when it can. No logger may end or stall a run."""

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitexp.record import ANSWERS, RunRecord, write_atomically
from vitexp.train.config import RunConfig
from vitexp.wandb_record import end_summary, start_config, unreachable

INIT_SECONDS = 30.0
"""How long the start waits for a server that listens but does not answer; WANDB_INIT_TIMEOUT overrules it."""
FINISH_SECONDS = 120.0
"""How long the end waits for what is not yet sent; WANDB_FINISH_TIMEOUT overrules it."""
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

    wandb.setup(wandb.Settings(silent=True))
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
        _tell(f"{error}; logging offline")
        return False


class RunLogger(WandbLogger):
    """The W&B logger, made so that a missing key, server or network leaves an offline run and not a dead one."""

    def __init__(self, run: RunConfig, directory: Path, *, mode: str, group: str, name: str, resumed: bool) -> None:
        kept = kept_run(directory) if resumed else {}
        made: dict[str, Any] = {"project": run.project, "id": uuid.uuid4().hex[:12]} | kept
        super().__init__(name=name, save_dir=directory, group=group, **made)
        self.mode = mode
        self.directory = directory
        self._broken = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at its first use and then noted in the run's folder, so that a resume continues it."""
        if self._experiment is None:
            self._experiment = _start(self._wandb_init, self.mode)
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            keep_run(self.directory, self._experiment)
        return self._experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers."""
        self._harmlessly(lambda: super(RunLogger, self).log_metrics(metrics, step))

    def log_start(self, record: RunRecord) -> None:
        """The hyper-parameters as flat dotted keys, and who this run is; what a sweep has set stays as it set it."""

        def log() -> None:
            known = dict(self.experiment.config)
            self.experiment.config.update({k: v for k, v in start_config(record).items() if k not in known})

        self._harmlessly(log)

    def log_end(self, record: RunRecord) -> None:
        """The final numbers, or why there are none; and the answers to each image, as an artifact of the run."""
        self._harmlessly(lambda: self.experiment.summary.update(end_summary(record)))
        if record.answers:
            self._harmlessly(lambda: self._log_answers(record))

    def _log_answers(self, record: RunRecord) -> None:
        from wandb import Artifact

        artifact = Artifact(f"{ANSWERS}-{self.experiment.id}", type=ANSWERS, metadata=record.answers)
        for entry in record.answers.values():
            artifact.add_file(str(self.directory / entry["file"]), name=entry["file"])
        self.experiment.log_artifact(artifact)

    def describe(self) -> tuple[str, str] | None:
        """Kind and place of the run, for the last lines a person reads; None when it never started."""
        started = self._experiment
        if started is None or getattr(started, "disabled", False):
            return None
        folder = _folder(started)
        if started.offline:
            pieces = sorted(map(str, Path(folder).parent.glob(f"offline-run-*-{started.id}")))  # one for each resume
            return "W&B offline", f"{folder}   (upload: wandb sync {' '.join(pieces)})"
        return "W&B online", str(started.url)

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run; waits for the server no longer than two minutes, and says how to send the rest."""
        started = self._experiment
        if started is not None and not getattr(started, "disabled", False):
            self._harmlessly(lambda: _finish(started, exit_code))

    def _harmlessly(self, work: Callable[[], None]) -> None:
        """Training goes on whatever W&B's client meets; what it cannot take is in the CSV and in the record."""
        if self._broken or getattr(rank_zero_only, "rank", 0) != 0:
            return
        try:
            work()
        except Exception as error:
            self._broken = True
            _tell(f"{type(error).__name__}: {' '.join(str(error).split())}; it gets no more numbers of this run")


def tell_agent(record: RunRecord, run: RunConfig, directory: Path) -> None:
    """Where a W&B agent asks for a run that is finished already, its numbers become those of the agent's run."""
    if "WANDB_SWEEP_ID" not in os.environ or (mode := wandb_mode(run)) == "disabled":
        return
    name = f"{record.cell}-seed{record.seed}"
    logger = RunLogger(run, directory, mode=mode, group=record.study, name=name, resumed=False)
    logger.log_start(record)
    rows: dict[int, dict[str, float]] = {}
    for metric, points in record.curves.items():
        for step, value in points:
            rows.setdefault(step, {})[metric] = value
    for step in sorted(rows):
        logger.log_metrics(rows[step], step)
    logger.log_metrics(record.metrics, record.steps)
    logger.log_end(record)
    logger.finish(0)


def kept_run(directory: Path) -> dict[str, str]:
    """Id, project and entity of the W&B run that this folder began with, if it began with one."""
    path = directory / _ID_FILE
    words = path.read_text().strip().split("/") if path.is_file() else []
    return dict(zip(("id", "project", "entity"), reversed([word for word in words if word]), strict=False))


def keep_run(directory: Path, started: Any) -> None:
    """Writes whose W&B run this is: ENTITY/PROJECT/ID, or without the entity when no server has named it."""
    path = "/".join(filter(None, (started.entity, started.project, started.id)))
    write_atomically(directory / _ID_FILE, path + "\n")


def _start(arguments: Mapping[str, Any], mode: str) -> Any:
    """The run in the first mode that works: as wanted, offline, not at all."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout_raises=True, **_waits())
    arguments = {name: value for name, value in arguments.items() if name != "anonymous"}
    for tried, then in ((mode, "offline"), ("offline", "disabled")):
        try:
            if tried == "online" and (why := unreachable(wandb.setup().settings.base_url)):
                raise ConnectionError(why)
            return wandb.init(**arguments, mode=cast(Any, tried), settings=settings)
        except Exception as error:  # a wrong key, no server, no room for its files: training does not depend on it
            _tell(f"{' '.join(str(error).split())}; logging {then}")
            wandb.teardown()  # the client's service still holds the id of the run that it could not start
    return wandb.init(mode="disabled")


def _finish(started: Any, exit_code: int) -> None:
    """Ends the run; what the server did not take lies in the run's folder, and the command that sends it is printed."""
    folder, why = _folder(started), None
    try:
        started.finish(exit_code=exit_code)
    except TimeoutError:
        why = "did not take everything in time"
    if why is None and not started.offline and _refused(Path(folder)):
        why = "refused some of the numbers"
    if why is not None:
        _tell(f"the server {why}; upload the rest: wandb sync --include-online {folder}")


def _refused(folder: Path) -> bool:
    """Whether the client gave up sending: it does so for good, and with success, when a server answers 404 or 403."""
    log = folder / "logs" / "debug-internal.log"
    return log.is_file() and "filestream: fatal error" in log.read_text(errors="replace")


def _waits() -> dict[str, Any]:
    """The bounds of waiting that the environment does not set itself."""
    bounds = {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS}
    return {name: seconds for name, seconds in bounds.items() if f"WANDB_{name.upper()}" not in os.environ}


def _folder(started: Any) -> str:
    return str(Path(started.dir).parent)


def _tell(text: str) -> None:
    print(f"W&B: {text}", file=sys.stderr)
