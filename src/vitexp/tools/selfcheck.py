"""`vitexp selfcheck`: a certificate for a config, its own parts included, in seconds and without data."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitexp.data.opened import OpenedSet
from vitexp.data.own_augment import OwnStep, changes_something
from vitexp.data.sources.published_sizes import SIZES, PublishedData
from vitexp.eval.certificate import Line, certify
from vitexp.eval.subject import Subject
from vitexp.json_text import as_text
from vitexp.nn.arch import parse_arch
from vitexp.nn.config import network_config
from vitexp.nn.table import TABLES
from vitexp.nn.vit import ViTConfig, resolve
from vitexp.train.command import TrainingCommand
from vitexp.train.config import ClassifyConfig
from vitexp.train.optim import build_optimizer, check_length

_LIKE, _STEPS = "imagenet", 1000
_ABOUT = (
    "Checks a network on random images before anything trains: that the options that differ from the baseline's do "
    "something, that they alone differ, and that its parts are what they declare."
)
_FLAGS = "All other flags are those of `vitexp fit`. Nothing is trained, and nothing is read but the config."


class NoData(PublishedData):
    """Data whose classes and size are taken as ImageNet's where there are none, and data.image_size is given."""

    def _open(self) -> OpenedSet:
        try:
            return super()._open()
        except ValueError:
            if self.image_size is None or Path(self.shards).exists():
                raise
        return self._sized(_LIKE, SIZES[_LIKE])


def selfcheck(argv: Sequence[str], groups: dict[str, type]) -> int:
    """The command: prints a line for each check; exit status 1 where one fails."""
    parser = argparse.ArgumentParser(prog="vitexp selfcheck", allow_abbrev=False, description=_ABOUT, epilog=_FLAGS)
    parser.add_argument(
        "--baseline", metavar="FILE", help="config to compare with (default: every axis at its default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead (docs/json.md)")
    chosen, rest = parser.parse_known_args(list(argv))
    with redirect_stdout(sys.stderr):  # where a part prints
        command = _planned(rest, groups)
        config = base = command.model.config
        if chosen.baseline:
            base = _planned(["--config", chosen.baseline], groups).model.config
            if apart := _other_data(config, base):
                raise ValueError(f"--baseline {chosen.baseline} has {apart}; give both configs the same data")
        check_length(config, int(config.warmup_steps) + _STEPS)
        seed = int(command.parsed["seed_everything"])
        how, lines = command.datamodule.augmentation, []
        if isinstance(step := how.policy(command.datamodule.augment), OwnStep):
            lines.append(_augmentation(step, command.datamodule.size))
        found = _certificate(config, base if chosen.baseline else _plain(config), seed, lines)
    print(as_text(found) if chosen.json else shown(found))
    return 0 if found["holds"] else 1


def _augmentation(step: OwnStep, size: int) -> Line:
    """Whether the user's own augmentation does something."""
    if changes_something(step, size):
        return Line("augmentation", "holds", f"auto_augment {step.path} changes images")
    return Line("augmentation", "FAILS", f"auto_augment {step.path} changed none of 300 images; connect it")


def certified(model: Mapping[str, Any], baseline: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The certificate of an arm against its baseline, from their options of `model` as records hold them.

    A baseline for other data is replaced by the network with every axis at its default.
    """
    config, base = (resolve(ClassifyConfig(**options)) for options in (model, baseline))
    return _certificate(config, _plain(config) if _other_data(config, base) else base, seed)


def _planned(words: Sequence[str], groups: dict[str, type]) -> TrainingCommand:
    argv = ["fit", *words, "--trainer.fast_dev_run=true"]  # of which no length is asked
    return TrainingCommand(argv, groups, until="planned", weights=False, data=NoData)


def _other_data(config: ViTConfig, base: ViTConfig) -> str:
    """In which size of images or number of classes two configs differ; empty where in none."""
    names = [name for name in ("image_size", "classes") if getattr(config, name) != getattr(base, name)]
    return ", ".join(f"{name} {getattr(base, name)}, and the config {getattr(config, name)}" for name in names)


def _plain(config: ViTConfig) -> ViTConfig:
    """The network of the same sizes with every axis at its default."""
    arch = parse_arch(config.arch, config.stem).full_name
    return resolve(ViTConfig(arch=arch, image_size=config.image_size, classes=config.classes))


def _certificate(config: ClassifyConfig, base: ViTConfig, seed: int, more: Sequence[Line] = ()) -> dict[str, Any]:
    """What `--json` prints."""

    def optimize(network: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(config, network.named_parameters())

    subject = Subject(network_config(config), network_config(base), seed, optimize)
    lines = [*certify(subject), *more]
    return {
        "schema": "vitexp.selfcheck/1",
        "arch": parse_arch(config.arch, config.stem).full_name,
        "image_size": config.image_size,
        "classes": config.classes,
        "changed": {name: {"here": here, "baseline": there} for name, (here, there) in subject.changed.items()},
        "training": {axis: getattr(config, axis) for axis in config.sources if axis not in TABLES},
        "holds": not any(line.verdict == "FAILS" for line in lines),
        "checks": [line._asdict() for line in lines],
    }


def shown(found: Mapping[str, Any]) -> str:
    """A certificate as text."""
    changed = [f"{name} {both['here']} against {both['baseline']}" for name, both in found["changed"].items()]
    changed = changed or ["the baseline's network"]
    changed += [f"trained with {axis} {path}" for axis, path in found["training"].items()]
    head = f"{found['arch']}, {found['image_size']} pixels, {found['classes']:,} classes"
    counts = Counter(one["verdict"] for one in found["checks"])
    return "\n".join(
        [
            f"{head}: {', '.join(changed)}",
            *(f"  {one['check']:18}  {one['verdict']:8}  {one['text']}" for one in found["checks"]),
            f"{len(found['checks'])} checks: {counts['holds']} hold, {counts['FAILS']} fail, "
            f"{counts['reported']} reported",
        ]
    )
