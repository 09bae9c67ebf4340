"""Whether a run may begin: it is what its config says, and its folder holds no other; and what it begins on."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch

from vitexp.data.module import ShardData
from vitexp.record import RECORD_NAME, RunRecord, measured_elsewhere, read_record
from vitexp.source import source_hash
from vitexp.train.callbacks.best import BestWeights
from vitexp.train.callbacks.probe import FewShotProbe
from vitexp.train.config import RunConfig, described
from vitexp.train.continuation import differences, listed
from vitexp.train.measure import callback_of
from vitexp.train.module import Classifier
from vitexp.train.plan import RunPlan, plan_of

_DEFAULTS: dict[str, Any] = {
    "max_epochs": None,
    "max_steps": -1,
    "min_epochs": None,
    "min_steps": None,
    "accumulate_grad_batches": 1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "overfit_batches": 0.0,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
    "reload_dataloaders_every_n_epochs": 0,
}
"""The trainer's options that decide what is trained and measured and that it shows, as they are where a config leaves
them unset."""
_NO_BOUND = {"max_epochs": -1, "min_epochs": 0}
"""Lightning's signs for no bound."""
_PRECISIONS = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def own_parts(trainer: Any, module: Any) -> tuple[Classifier, ShardData]:
    """The module and the data of a run. Raises: ValueError where they are of other kinds."""
    data = trainer.datamodule
    if not (isinstance(module, Classifier) and isinstance(data, ShardData)):
        raise ValueError(
            f"RunRecorder records a Classifier that trains on a ShardData, and here {type(module).__name__} trains on "
            f"{type(data).__name__}; give the data as trainer.fit(module, datamodule=data)"
        )
    return module, data


def checked_plan(
    plan: RunPlan, run: RunConfig, trainer: Any, module: Classifier, data: ShardData, configured: Sequence[L.Callback]
) -> RunPlan:
    """The plan, if what begins to train is what its config says. A subclass of `Classifier`, and callbacks that the
    config does not name, count as parts of it.

    Raises: ValueError that names the options that differ.
    """
    config = plan.config
    given = {
        **config,
        "trainer": config["trainer"] | _options(config["trainer"], trainer, data),
        "model": dict(module.hparams),
        "data": config["data"] | dict(data.hparams) | {"subset": data.subset_fingerprint},
    }
    if apart := differences(_as_json(config), _as_json(given)):
        raise ValueError(f"the config of the recorder is not what trains: here {listed(apart)}")
    _check_measured(run, trainer, data)
    more = [_part(one) for one in trainer.callbacks if one not in configured and not _is_ours(one)]
    own = config | ({} if type(module) is Classifier else {"module": _part(module)})
    if more:
        own = own | {"trainer": config["trainer"] | {"callbacks": [*config["trainer"].get("callbacks", []), *more]}}
    return plan_of(own, run, plan.study)


def _options(config: Mapping[str, Any], trainer: Any, data: ShardData) -> dict[str, Any]:
    """The trainer's options, as far as it shows them, in place of those that the config sets."""
    options = {}
    for name, default in _DEFAULTS.items():
        given = getattr(trainer, name)
        if name in _NO_BOUND and given == _NO_BOUND[name]:
            given = None
        wanted = default if config.get(name) is None else config[name]
        if (type(given), given) != (type(wanted), wanted):  # 1 is one batch, and 1.0 all of them
            options[name] = given
    if not data.val_count:
        options.pop("limit_val_batches", None)  # the data turn validation off
    asked = str(config.get("precision") or "32-true")
    if trainer.precision != _PRECISIONS.get(asked, asked):
        options["precision"] = trainer.precision
    return options


def _check_measured(run: RunConfig, trainer: Any, data: ShardData) -> None:
    """Raises: ValueError where the callbacks measure or keep something else than the config asks for."""
    asked, probe = tuple(run.shots if data.test_count else ()), callback_of(trainer, FewShotProbe)
    if asked != (probe.shots if probe else ()) or (probe and asked and probe.draws != run.shot_seeds):
        raise ValueError(
            f"the config asks for few-shot probes of run.shots {list(asked)} in {run.shot_seeds} draws; give the "
            f"trainer FewShotProbe({list(asked)}, {run.shot_seeds}) beside the recorder, or the config run.shots []"
        )
    if (run.keep == "best") != (callback_of(trainer, BestWeights) is not None):
        raise ValueError("run.keep best and the callback BestWeights belong together; give both or neither")


def _is_ours(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] == "vitexp"


def _part(part: Any) -> Any:
    """A part that no config names: its class, its plain attributes, and a digest of the source where it is a user's."""
    kind = type(part)
    named = {"class_path": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(part, L.Callback):
        plain = {name: value for name, value in vars(part).items() if isinstance(value, str | int | float | bool)}
        named["init_args"] = plain  # type: ignore[assignment]
    return described(named)


def _as_json(config: Any) -> Any:
    return json.loads(json.dumps(config, default=str))


def claim(plan: RunPlan, data: Mapping[str, Any]) -> RunRecord | None:
    """The earlier record of this very run in its folder, if there is one; `data` describes the run's data.

    Raises: ValueError when the folder holds a run of another config, or one measured on other images.
    """
    if not (plan.directory / RECORD_NAME).is_file():
        return None
    earlier = read_record(plan.directory)
    if earlier.fingerprint != plan.fingerprint:
        raise ValueError(
            f"{plan.directory} holds a run of another config (fingerprint {earlier.fingerprint}, now "
            f"{plan.fingerprint}); give another --run.dir, or move that folder away"
        )
    if split := measured_elsewhere(earlier, data["order_fingerprints"]):
        raise ValueError(
            f"{plan.directory} holds this run with other {split} images or labels than {data['name']} has now; "
            "give another --run.dir, or move that folder away"
        )
    return earlier


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_state() -> dict[str, Any]:
    """The digest of the package's source, and commit and dirty flag of the checkout it runs from, if it is one."""
    here, state = Path(__file__).parent, {"source": source_hash()}
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return state | {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return state


def device_state(trainer: L.Trainer) -> dict[str, Any]:
    """What the run computes on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "type": device.type,
        "name": name,
        "world_size": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }


def _git(where: Path, *arguments: str) -> str:
    command = ["git", "-C", str(where), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
