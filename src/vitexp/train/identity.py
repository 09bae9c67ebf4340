"""What a run is, known before it trains: its config, fingerprint and folder, its start and cost; and which run wrote a
checkpoint, and whether another may go on from it.

A checkpoint brings its optimizer with it, and with that the rates, decays and moments of the run that wrote it. So it
continues only that run, or a longer one, which is another run and says so in its config as `run.continued`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitexp.data.module import ShardData
from vitexp.nn.arch import parse_arch
from vitexp.nn.vit import ViTConfig
from vitexp.record import (
    RECORD_NAME,
    RunRecord,
    cell_fingerprint,
    fingerprint,
    measured_elsewhere,
    read_record,
    result_config,
    run_directory,
)
from vitexp.train.config import RunConfig, with_sources
from vitexp.train.initial import NONE, content_of
from vitexp.words import listed

_OPTIONAL = ("train_images", "train_fraction", "image_size")
"""Data options whose absence is a choice of its own."""
_SUFFIXES = (".ckpt", ".safetensors", ".npz", ".pt", ".bin")
_EVERYWHERE = ("/", ".", "..", "runs", "checkpoints", "last")
LAST_CHECKPOINT = "checkpoints/last.ckpt"
_HEX = 16


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Which run it is, and where it lies."""

    study: str
    cell: str
    seed: int
    fingerprint: str
    directory: Path
    config: dict[str, Any]

    @property
    def last_checkpoint(self) -> Path:
        """Where the run's newest checkpoint lies."""
        return self.directory / LAST_CHECKPOINT

    def record(self, **more: Any) -> RunRecord:
        """A record of this run, as running."""
        named = {name: value for name, value in vars(self).items() if name != "directory"}
        return RunRecord(status="running", **named, **more)


def identify(
    parsed: Mapping[str, Any], model: Mapping[str, Any], data: Mapping[str, Any], run: RunConfig, study: str
) -> RunIdentity:
    """The run of a parsed config, whose network is `model` and whose data set is described by `data`."""
    config = _set_only(parsed)
    config["trainer"] = with_sources(config.get("trainer", {}))
    config["model"] = dict(model)
    content = {"content": data["shards_fingerprint"], "subset": data["subset_fingerprint"]}
    config["data"] = config.get("data", {}) | content
    if digest := content_of(run.init, run.download):
        config["run"] = config["run"] | {"init_content": digest}
    return identity_of(config, run, study)


def identity_of(config: dict[str, Any], run: RunConfig, study: str) -> RunIdentity:
    """The run of a config that is complete."""
    seed = int(config.get("seed_everything", 0))
    cell = f"{slug(config['model'], run.init)}-{cell_fingerprint(config)[:8]}"
    directory = Path(run.dir) if run.dir else run_directory(run.root, study, cell, seed)
    digits = fingerprint(config)
    return RunIdentity(study=study, cell=cell, seed=seed, fingerprint=digits, directory=directory, config=config)


def slug(model: Mapping[str, Any], init: str = NONE) -> str:
    """The network, what it learns and whose weights it begins with, in a few words that suit a folder's name."""
    arch = parse_arch(model["arch"], model["stem"])
    words = [arch.full_name, model["pos_embed"], model["pos_at"], model["pool"]]
    if arch.family == "resnet":
        words = [arch.name, model["resnet"]]
    elif model["attention"] != "full":
        words.append(model["attention"])
    if model["objective"] != "classify":
        words.append(model["objective"])
    if init != NONE:
        words += ["from", _whose(init)]
    return re.sub(r"[^A-Za-z0-9.+]+", "-", "-".join(str(word) for word in words)).strip("-")


def _whose(init: str) -> str:
    """Who left the weights: the study or the cell of a run, the name of a file, or a network of timm's."""
    parts = Path(init).with_suffix("").parts if init.endswith(_SUFFIXES) else Path(init).parts
    telling = [part for part in parts if part not in _EVERYWHERE and not re.fullmatch(r"seed-\d+", part)]
    return telling[-1] if telling else "weights"


def _set_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left unset, so that a library's new option does not change a fingerprint."""
    return {
        key: _set_only(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if value is not None or key in _OPTIONAL
    }


def claim(identity: RunIdentity, data: Mapping[str, Any]) -> RunRecord | None:
    """The earlier record of this very run in its folder, if there is one; `data` describes the run's data.

    Raises: ValueError when the folder holds a run of another config, or one measured on other images.
    """
    if not (identity.directory / RECORD_NAME).is_file():
        return None
    earlier = read_record(identity.directory)
    if earlier.fingerprint != identity.fingerprint:
        apart = differences(earlier.config, identity.config)
        raise ValueError(
            f"{identity.directory} holds a run of another config (fingerprint {earlier.fingerprint}, now "
            f"{identity.fingerprint}{': here ' * bool(apart)}{in_words(apart)}); give another --run.dir, or move that "
            "folder away"
        )
    if split := measured_elsewhere(earlier, data["order_fingerprints"]):
        raise ValueError(
            f"{identity.directory} holds this run with other {split} images or labels than {data['name']} has now; "
            "give another --run.dir, or move that folder away"
        )
    return earlier


def start_of(network: nn.Module, data: ShardData) -> dict[str, Any]:
    """What a run starts from: digests of its weights and of the first epoch's images in their order, cut into batches.

    The study wing compares it with other runs'.
    """
    samples = data.epoch_order("train").samples(0, 0, data.train_count).astype("<i8").tobytes()
    return {
        "weights": {name: weight_digest(parameter.detach()) for name, parameter in network.named_parameters()},
        "order": hashlib.sha256(f"{data.batch_size}:".encode() + samples).hexdigest()[:_HEX],
        "views": f"augment {data.augment}, mix {data.mix}, {data.size} pixels, seed {data.seed}"
        + "".join(f", {name} {value}" for name, value in data.augmentation.changed().items()),
    }


def weight_digest(weight: Tensor) -> dict[str, Any]:
    """The shape of a parameter and its values: the value itself where all are one, otherwise the digest of a draw."""
    weight = weight.cpu().contiguous()
    first = weight.flatten()[0].item()
    constant = bool((weight == first).all())
    values = f"constant {first:g}" if constant else hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:_HEX]
    return {"shape": list(weight.shape), "values": values}


KEY = "vitexp_run"
"""Where a checkpoint holds the fingerprint and the config of its run."""
_LENGTH = {"trainer.max_epochs", "trainer.max_steps"}
_COMPUTES = [field.name for field in fields(ViTConfig) if field.name != "classes"] + ["objective", "loss", "polyak"]
"""Options of the model that decide what a checkpoint computes."""
_WANTED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step", "vitexp")
_SOURCE = re.compile(r"(?:model|data|run)\.sources\.(\w+)")
"""The hash of a part's file. Where one side has none, the part itself is another, and said so."""
_OTHERWISE = "to begin with its weights alone give --run.init"


@dataclass(frozen=True)
class Origin:
    """Which run wrote a checkpoint, and in which step."""

    path: Path
    fingerprint: str
    config: dict[str, Any]
    model: dict[str, Any]
    step: int
    averaged: bool = False
    """Whether it holds weights to measure beside those that train"""

    def differences(self, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Those of another config from its own. Raises: ValueError where nothing says which run wrote it."""
        if not self.config:
            raise ValueError(
                f"{self.path} does not say which run wrote it, and no record lies in the folder above it, so it cannot "
                f"be continued; {_OTHERWISE} {self.path}"
            )
        return differences(self.config, config)


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
    averaged = any(name.startswith("average.") for name in content["state_dict"])
    return Origin(path, fingerprint(config) if config else "", config, model, int(content["global_step"]), averaged)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The tensors and plain values of a run's checkpoint. Nothing in it is executed.

    Raises: ValueError for a file that is none of ours or is damaged.
    """
    if not Path(path).is_file():
        raise ValueError(f"--ckpt_path {path} is no file; give a checkpoint, or `last` for this run's own")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a file from anywhere can fail in any way, a short one even as an OSError
        why = "it holds code, which is never executed" if "Unsupported" in str(error) else "damaged, or of another kind"
        raise ValueError(f"{path} is not a checkpoint that can be read ({why})") from error
    if not isinstance(content, dict) or any(name not in content for name in _WANTED):
        raise ValueError(f"{path} is not a checkpoint of a vitexp run; if it holds weights, give them as --run.init")
    return content


def continuing(identity: RunIdentity, run: RunConfig, checkpoint: str | None, steps: Callable[[], int]) -> RunIdentity:
    """The run, with `run.continued` in its config if it goes on from another one: by the checkpoint that is given, or
    by what its folder holds. `steps` counts those of the whole run.

    Raises: ValueError naming the options by which the run that wrote the checkpoint differs.
    """
    config, before = identity.config, None
    if checkpoint:
        origin = read_origin(checkpoint)
        before = _adopted(config, origin.fingerprint, origin.config)
        if not before and origin.fingerprint != identity.fingerprint:
            _check_continues(origin, config, steps())
            before = {"fingerprint": origin.fingerprint, "step": origin.step}
    elif (identity.directory / RECORD_NAME).is_file():
        earlier = read_record(identity.directory)
        before = _adopted(config, earlier.fingerprint, earlier.config)
    return identity_of(_with_continued(config, before), run, identity.study) if before else identity


def _adopted(config: Mapping[str, Any], found: str, its_config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `run.continued` of a run that is this config's but for having been continued from another."""
    before = its_config.get("run", {}).get("continued")
    return dict(before) if before and fingerprint(_with_continued(config, before)) == found else None


def _with_continued(config: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "run": {**config.get("run", {}), "continued": dict(before)}}


def _check_continues(origin: Origin, config: Mapping[str, Any], steps: int) -> None:
    """Raises: ValueError unless a run of this config and of this many steps is only a longer one."""
    path, apart = origin.path, origin.differences(config)
    if not apart.keys() <= _LENGTH:
        raise ValueError(
            f"{path} continues only the run that wrote it, and here {in_words(apart)}; {_OTHERWISE} {path}"
        )
    if steps <= origin.step:
        raise ValueError(
            f"{path} is from step {origin.step} already, and this run ends with step {steps}; train longer "
            "(trainer.max_epochs, trainer.max_steps)"
        )
    model, run = origin.config.get("model", {}), origin.config.get("run", {})
    others = ["trainer.callbacks"] if "trainer.callbacks" in result_config(origin.config) else []
    others += ["model.polyak" if model.get("polyak") else "model.optimizer"] if origin.averaged else []
    others += ["run.keep best"] if run.get("keep") == "best" else []
    if others:
        raise ValueError(
            f"{path} may hold other weights than those of its last step ({', '.join(others)}), so no longer run can "
            f"continue it; {_OTHERWISE} {path}"
        )


def check_own(path: Path, config: Mapping[str, Any]) -> None:
    """Raises: ValueError when the checkpoint in a run's folder is that of another run."""
    if apart := read_origin(path).differences(config):
        raise ValueError(f"{path} was written by another run: here {in_words(apart)}; give another --run.dir")


def check_network(path: str, model: Mapping[str, Any], averaged: bool) -> None:
    """Raises: ValueError when the checkpoint holds another network than the one to be measured."""
    origin = read_origin(path)
    its = _computing({name: value for name, value in origin.model.items() if name in _COMPUTES})
    if apart := differences({"model": its}, {"model": _computing({name: model[name] for name in its})}):
        raise ValueError(f"{path} holds another network: here {in_words(apart)}; give the options it was trained with")
    if averaged != origin.averaged:
        raise ValueError(f"{path} was trained with model.optimizer {origin.model.get('optimizer')}; give that too")


def _computing(model: Mapping[str, Any]) -> dict[str, Any]:
    """Without what belongs to a part of the user's own that only training needs."""
    own = {name: model[name] for name in ("options", "sources") if name in model}
    return {**model, **{name: {axis: one for axis, one in of.items() if axis in _COMPUTES} for name, of in own.items()}}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options that count and are not the same in two configs, with both values."""
    first, second = result_config(one), result_config(other)
    both = {key: (first.get(key), second.get(key)) for key in sorted(first.keys() | second.keys())}
    return {key: values for key, values in both.items() if values[0] != values[1]}


def in_words(apart: Mapping[str, tuple[Any, Any]]) -> str:
    """What is different here and there."""
    named = [(key, *("unset" if value is None else value for value in values)) for key, values in apart.items()]
    said = [f"{key} is {here} (there {there})" for key, there, here in named if not _SOURCE.match(key)]
    edited = [found[1] for key, values in apart.items() if (found := _SOURCE.match(key)) and None not in values]
    return listed([*[f"the file of your own {name} has changed" for name in edited], *said], most=6)
