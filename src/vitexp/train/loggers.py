"""Where a run's numbers go while it runs: CSV always, W&B when it can. No logger may end or stall a run."""

import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitexp.bits import ANSWERS
from vitexp.record import RunRecord, open_metrics, option, write_atomically
from vitexp.train.config import RunConfig
from vitexp.train.identity import RunIdentity
from vitexp.wandb_record import end_summary, start_config, unreachable

_SECONDS = {"init_timeout": 30.0, "finish_timeout": 120.0}
"""How long the start waits for a server that listens but does not answer, and the end for what is not yet sent;
WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT overrule it."""
_ID_FILE = "wandb_id.txt"


def build_loggers(run: RunConfig, identity: RunIdentity, *, resumed: bool) -> list[Logger]:
    """CSV first, because the trainer's own folder follows the first logger; W&B second, unless it is off."""
    loggers: list[Logger] = [CSVLogger(save_dir=identity.directory, name="metrics")]
    mode = wandb_mode(run)
    return loggers if mode == "disabled" else [*loggers, RunLogger(run, identity, mode=mode, resumed=resumed)]


def wandb_mode(run: RunConfig) -> str:
    """The W&B mode this run will use: online, offline or disabled."""
    if run.wandb != "auto":
        return {"off": "disabled"}.get(run.wandb, run.wandb)
    if spoken := os.environ.get("WANDB_MODE", ""):
        return {"dryrun": "offline"}.get(spoken, spoken)
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:  # nothing is asked of a person or of the network
        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
        _tell(f"{error}; logging offline")
        return "offline"


class RunLogger(WandbLogger):
    """The W&B logger, made so that a missing key, server or network leaves an offline run and not a dead one."""

    def __init__(self, run: RunConfig, identity: RunIdentity, *, mode: str, resumed: bool) -> None:
        self.mode, self.directory, self._broken = mode, identity.directory, False
        made: dict[str, Any] = {"project": run.project, "id": uuid.uuid4().hex[:12]}
        made |= kept_run(self.directory) if resumed else {}
        name = f"{identity.cell}-seed{identity.seed}"
        super().__init__(name=name, save_dir=self.directory, group=identity.study, **made)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at its first use and then noted in the run's folder, so that a resume continues it."""
        if self._experiment is None:
            self._experiment = started = _start(self._wandb_init, self.mode)
            started.define_metric("trainer/global_step")
            started.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            path = "/".join(filter(None, (started.entity, started.project, started.id)))  # no entity before a server
            write_atomically(self.directory / _ID_FILE, path + "\n")
        return self._experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers."""
        self._harmlessly(lambda: super(RunLogger, self).log_metrics(metrics, step))

    def log_start(self, record: RunRecord) -> None:
        """The hyper-parameters as flat dotted keys, and which run this is; what a sweep has set stays as it set it."""

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

        artifact = Artifact(f"{ANSWERS}-{self.experiment.id}", type=ANSWERS)
        for file in dict.fromkeys(entry["file"] for entry in record.answers.values()):
            artifact.add_file(str(self.directory / file), name=file)
        self.experiment.log_artifact(artifact)

    def describe(self) -> tuple[str, str] | None:
        """Kind and place of the run, for the last lines a person reads; None when it never started."""
        if (started := self._started()) is None:
            return None
        if not started.offline:
            return "W&B online", str(started.url)
        folder = Path(started.dir).parent
        pieces = sorted(map(str, folder.parent.glob(f"offline-run-*-{started.id}")))  # one for each resume
        return "W&B offline", f"{folder}   (upload: wandb sync {' '.join(pieces)})"

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run; waits for the server no longer than two minutes, and says how to send the rest."""
        if (started := self._started()) is not None:
            self._harmlessly(lambda: _finish(started, exit_code))

    def _started(self) -> Any:
        started = self._experiment
        return None if getattr(started, "disabled", False) else started

    def _harmlessly(self, work: Callable[[], None]) -> None:
        """Training goes on whatever W&B's client meets; what it cannot take is in the CSV and in the record."""
        if self._broken or getattr(rank_zero_only, "rank", 0) != 0:
            return
        try:
            work()
        except Exception as error:
            self._broken = True
            _tell(f"{type(error).__name__}: {' '.join(str(error).split())}; it gets no more numbers of this run")


def run_loggers(trainer: Any) -> list[RunLogger]:
    """The W&B loggers; on other ranks than the first they do nothing."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def tell_agent(record: RunRecord, run: RunConfig, identity: RunIdentity) -> None:
    """Where a W&B agent asks for a run that is finished already, its numbers become those of the agent's run."""
    if "WANDB_SWEEP_ID" not in os.environ or (mode := wandb_mode(run)) == "disabled":
        return
    logger = RunLogger(run, identity, mode=mode, resumed=False)
    logger.log_start(record)
    rows: dict[int, dict[str, float]] = {}
    for metric, points in record.curves.items():
        for step, value in points:
            rows.setdefault(step, {})[metric] = value
    for step in sorted(rows):
        logger.log_metrics(rows[step], step)
    logger.log_metrics(open_metrics(record.metrics, record.config), record.steps)
    logger.log_end(record)
    logger.finish(0)


def send_again(records: Iterable[RunRecord]) -> None:
    """What was measured after training is added to the W&B run of each record that has one."""
    lacking = []
    for record in records:
        directory = Path(str(record.directory))
        if not kept_run(directory):
            lacking.append(str(directory))
            continue
        run = RunConfig(wandb=option(record.config, "run.wandb", "auto"))
        named = {name: getattr(record, name) for name in ("study", "cell", "seed", "fingerprint", "config")}
        logger = RunLogger(run, RunIdentity(directory=directory, **named), mode=wandb_mode(run), resumed=True)
        logger.log_end(record)
        logger.finish(0)
        for words in filter(None, [logger.describe()]):
            print("{}  {}".format(*words), file=sys.stderr)
    if lacking:
        _tell(f"no numbers for runs that were not logged there: {len(lacking)}, the first is {lacking[0]}")


def kept_run(directory: Path) -> dict[str, str]:
    """Id, project and entity of the W&B run that this folder began with, if it began with one."""
    path = directory / _ID_FILE
    words = path.read_text().strip().split("/") if path.is_file() else []
    return dict(zip(("id", "project", "entity"), reversed([word for word in words if word]), strict=False))


def _start(arguments: Mapping[str, Any], mode: str) -> Any:
    """The run in the first mode that works: as wanted, offline, not at all."""
    import wandb

    waits: dict[str, Any] = {k: v for k, v in _SECONDS.items() if f"WANDB_{k.upper()}" not in os.environ}
    settings = wandb.Settings(silent=True, console="off", finish_timeout_raises=True, **waits)
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
    folder, why = Path(started.dir).parent, None
    try:
        started.finish(exit_code=exit_code)
    except TimeoutError:
        why = "did not take everything in time"
    log = folder / "logs" / "debug-internal.log"
    if why is None and not started.offline and log.is_file():
        # the client gives up sending for good, and with success, when a server answers 404 or 403
        why = "refused some of the numbers" if "filestream: fatal error" in log.read_text(errors="replace") else None
    if why is not None:
        _tell(f"the server {why}; upload the rest: wandb sync --include-online {folder}")


def _tell(text: str) -> None:
    print(f"W&B: {text}", file=sys.stderr)
