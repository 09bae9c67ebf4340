"""Who a run is: its resolved config, its fingerprint, its cell and its folder. Known before anything trains."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitexp.data.module import ShardData
from vitexp.eval.flops import train_flops as train_flops
from vitexp.nn.arch import parse_arch
from vitexp.record import RunRecord, cell_fingerprint, fingerprint, run_directory
from vitexp.train.config import RunConfig, with_sources
from vitexp.train.initial import NONE, content_of

# What a run starts from, as digests: its initial weights, and the order in which it sees the images at first.

_HEX = 16


def start_of(network: nn.Module, data: ShardData) -> dict[str, Any]:
    """The start of a run in words and numbers, for the study wing, which compares it with other runs'."""
    return {
        "weights": {name: weight_digest(parameter.detach()) for name, parameter in network.named_parameters()},
        "order": order_digest(data),
        "views": f"augment {data.augment}, mix {data.mix}, {data.size} pixels, seed {data.seed}",
    }


def weight_digest(weight: Tensor) -> dict[str, Any]:
    """The shape of a parameter and its values: the value itself where all are one, otherwise the digest of a draw."""
    weight = weight.cpu().contiguous()
    first = weight.flatten()[0].item()
    constant = bool((weight == first).all())
    values = f"constant {first:g}" if constant else hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:_HEX]
    return {"shape": list(weight.shape), "values": values}


def order_digest(data: ShardData) -> str:
    """The first epoch's images in their order, cut into its batches."""
    samples = data.epoch_order("train").samples(0, 0, data.train_count)
    return hashlib.sha256(f"{data.batch_size}:".encode() + samples.astype("<i8").tobytes()).hexdigest()[:_HEX]


_OPTIONAL = ("train_images", "train_fraction", "image_size")
"""Data options whose absence is a choice of its own."""
_SUFFIXES = (".ckpt", ".safetensors", ".npz", ".pt", ".bin")
_EVERYWHERE = ("/", ".", "..", "runs", "checkpoints", "last")


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The identity of one run."""

    study: str
    cell: str
    seed: int
    fingerprint: str
    directory: Path
    config: dict[str, Any]

    def record(self, **more: Any) -> RunRecord:
        """A record of this run, as running."""
        named = {name: value for name, value in vars(self).items() if name != "directory"}
        return RunRecord(status="running", **named, **more)

    def plain(self) -> dict[str, Any]:
        """The plan as words and numbers, for the study wing."""
        return asdict(self) | {"run_directory": str(self.directory), "directory": str(self.directory)}


def make_plan(
    parsed: Mapping[str, Any], model: Mapping[str, Any], data: Mapping[str, Any], run: RunConfig, study: str
) -> RunPlan:
    """Plans the run of a parsed config, whose network is `model` and whose data set is described by `data`."""
    config = _set_only(parsed)
    config["trainer"] = with_sources(config.get("trainer", {}))
    config["model"] = dict(model)
    config["data"] = config.get("data", {}) | {
        "content": data["shards_fingerprint"],
        "subset": data["subset_fingerprint"],
    }
    if digest := content_of(run.init, run.download):
        config["run"] = config["run"] | {"init_content": digest}
    return plan_of(config, run, study)


def plan_of(config: dict[str, Any], run: RunConfig, study: str) -> RunPlan:
    """Plans the run of a config that is complete."""
    seed, model = int(config.get("seed_everything", 0)), config["model"]
    cell = f"{slug(model, run.init)}-{cell_fingerprint(config)[:8]}"
    directory = Path(run.dir) if run.dir else run_directory(run.root, study, cell, seed)
    return RunPlan(
        study=study, cell=cell, seed=seed, fingerprint=fingerprint(config), directory=directory, config=config
    )


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
