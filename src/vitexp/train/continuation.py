"""Going on from a checkpoint: which run wrote it, and whether this one may continue it.

A checkpoint brings its optimiser with it, and with that the rates, decays and moments of the run that wrote it. So it
continues only that run, or a longer one, which is another run and says so in its config as `run.continued`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitexp.record import RECORD_NAME, fingerprint, read_record, result_config

KEY = "vitexp_run"
"""Where a checkpoint holds the fingerprint and the config of its run."""
LENGTH = {"trainer.max_epochs", "trainer.max_steps"}
_WANTED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step", "vitexp")
_MOST = 6
_OTHERWISE = "to begin with its weights alone give --run.init"


@dataclass(frozen=True)
class Origin:
    """Who wrote a checkpoint, and in which step."""

    path: Path
    fingerprint: str
    config: dict[str, Any]
    model: dict[str, Any]
    step: int


def read_origin(path: str | Path) -> Origin:
    """What a checkpoint says of the run that wrote it; one of before is known by the record of its folder.

    Raises: ValueError for a file that is none of ours or is damaged. Nothing in it is executed.
    """
    path = Path(path)
    content = read_checkpoint(path)
    said, own = content.get(KEY, {}), content["vitexp"]
    config = said.get("config", {}) if isinstance(said, dict) else {}
    beside = path.parent.parent / RECORD_NAME
    if not config and beside.is_file():
        config = read_record(beside).config
    model = own.get("model", {}) if isinstance(own, dict) else {}
    return Origin(path, fingerprint(config) if config else "", config, model, int(content["global_step"]))


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The tensors and plain values of a run's checkpoint. Nothing in it is executed.

    Raises: ValueError for a file that is none of ours or is damaged.
    """
    path = Path(path)
    content = _read(path, map_location)
    if not isinstance(content, dict) or any(name not in content for name in _WANTED):
        raise ValueError(f"{path} is not a checkpoint of a vitexp run; if it holds weights, give them as --run.init")
    return content


def _read(path: Path, map_location: Any) -> Any:
    if not path.is_file():
        raise ValueError(f"--ckpt_path {path} is no file; give a checkpoint, or `last` for this run's own")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a file from anywhere can fail in any way, a short one even as an OSError
        why = "it holds code, which is never executed" if "Unsupported" in str(error) else "damaged, or of another kind"
        raise ValueError(f"{path} is not a checkpoint that can be read ({why})") from error


def continued(config: Mapping[str, Any], steps: int, path: Path) -> dict[str, Any] | None:
    """What stands under `run.continued` of a run that goes on from `path`; None when the checkpoint is its own.

    Raises: ValueError naming the options by which the run that wrote it differs.
    """
    origin = read_origin(path)
    if adopted := adopt(config, origin.fingerprint, origin.config):
        return adopted
    if origin.fingerprint == fingerprint(config):
        return None
    check_known(origin)
    apart = differences(origin.config, config)
    if not apart.keys() <= LENGTH:
        raise ValueError(f"{path} continues only the run that wrote it, and here {listed(apart)}; {_OTHERWISE} {path}")
    _check_longer(origin, steps)
    return {"fingerprint": origin.fingerprint, "step": origin.step}


def adopt(config: Mapping[str, Any], found: str, its_config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `run.continued` of a run that is this config's but for having been continued from another."""
    before = its_config.get("run", {}).get("continued")
    return dict(before) if before and fingerprint(with_continued(config, before)) == found else None


def with_continued(config: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run that goes on from another."""
    return {**config, "run": {**config.get("run", {}), "continued": dict(before)}}


def check_known(origin: Origin) -> None:
    """Raises: ValueError for a checkpoint of which nothing says which run wrote it."""
    if not origin.config:
        raise ValueError(
            f"{origin.path} does not say which run wrote it, and no record lies in the folder above it, so it cannot "
            f"be continued; {_OTHERWISE} {origin.path}"
        )


def check_own(origin: Origin, config: Mapping[str, Any]) -> None:
    """Raises: ValueError when the checkpoint in a run's folder is that of another run."""
    check_known(origin)
    if apart := differences(origin.config, config):
        raise ValueError(f"{origin.path} was written by another run: here {listed(apart)}; give another --run.dir")


def check_network(origin: Origin, model: Mapping[str, Any], names: list[str]) -> None:
    """Raises: ValueError when the checkpoint holds another network than the one to be measured."""
    its, ours = ({"model": {name: held[name] for name in names if name in held}} for held in (origin.model, model))
    known = {"model": {name: value for name, value in ours["model"].items() if name in its["model"]}}
    if apart := differences(its, known):
        raise ValueError(
            f"{origin.path} holds another network: here {listed(apart)}; give the options it was trained with"
        )


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options that count and are not the same in two configs, with both values."""
    first, second = result_config(one), result_config(other)
    both = {key: (first.get(key), second.get(key)) for key in sorted(first.keys() | second.keys())}
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _check_longer(origin: Origin, steps: int) -> None:
    if steps <= origin.step:
        raise ValueError(
            f"{origin.path} is from step {origin.step} already, and this run ends with step {steps}; train longer "
            "(trainer.max_epochs, trainer.max_steps)"
        )
    model, run = origin.config.get("model", {}), origin.config.get("run", {})
    others = [key for key in result_config(origin.config) if key == "trainer.callbacks"]
    others += ["model.polyak"] if model.get("polyak") else []
    others += ["run.keep best"] if run.get("keep") == "best" else []
    if others:
        raise ValueError(
            f"{origin.path} may hold other weights than those of its last step ({', '.join(others)}), so no longer run "
            f"can continue it; {_OTHERWISE} {origin.path}"
        )


def listed(apart: Mapping[str, tuple[Any, Any]]) -> str:
    """In words, what is different here and there."""
    words = [f"{key} is {_value(here)} (there {_value(there)})" for key, (there, here) in apart.items()]
    return ", ".join(words[:_MOST]) + (f" and {len(words) - _MOST} more" if len(words) > _MOST else "")


def _value(value: Any) -> str:
    return "unset" if value is None else str(value)
