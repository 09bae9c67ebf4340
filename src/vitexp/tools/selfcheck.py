"""`vitexp selfcheck`: a certificate for a config, its own parts included, in seconds and without data."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.data.opened import OpenedSet
from vitexp.data.sources.published_sizes import SIZES, PublishedData
from vitexp.eval.certificate import Line, certify
from vitexp.eval.subject import Subject
from vitexp.json_text import as_text
from vitexp.nn.arch import parse_arch
from vitexp.nn.config import network_config
from vitexp.nn.vit import ViTConfig, resolve
from vitexp.train.command import TrainingCommand
from vitexp.train.config import ClassifyConfig
from vitexp.train.optim import build_optimizer

SCHEMA = "vitexp.selfcheck/1"
_LIKE = "imagenet"
_DESCRIPTION = (
    "Checks a network on random images before anything trains: that the options that differ from the baseline's do "
    "something, that they alone differ, and that its parts are what they declare."
)


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
    parser = argparse.ArgumentParser(
        prog="vitexp selfcheck",
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog="All other flags are those of `vitexp fit`. Nothing is trained, and nothing is read but --config.",
    )
    parser.add_argument(
        "--baseline", metavar="FILE", help="config to compare with (default: all axes at their defaults)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead (docs/json.md)")
    chosen, rest = parser.parse_known_args(list(argv))
    command = _planned(["fit", *rest], groups)
    config = command.model.config
    baseline = _planned(["fit", "--config", chosen.baseline], groups).model.config if chosen.baseline else None
    if baseline and (apart := _other_task(config, baseline)):
        raise ValueError(f"--baseline {chosen.baseline} has {apart}; give both configs the same data")
    subject = subject_of(config, baseline or plain_of(config), int(command.parsed["seed_everything"]))
    lines = certify(subject)
    print(as_text(document(subject, lines)) if chosen.json else shown(subject, lines))
    return int(any(line.verdict == "FAILS" for line in lines))


def _planned(argv: list[str], groups: dict[str, type]) -> TrainingCommand:
    trial = "--trainer.fast_dev_run=true"  # of which no length is asked
    return TrainingCommand([*argv, trial], groups, until="planned", weights=False, data=NoData)


def _other_task(config: ViTConfig, baseline: ViTConfig) -> str:
    """In which size of images or number of classes two configs differ; empty where in none."""
    names = [name for name in ("image_size", "classes") if getattr(config, name) != getattr(baseline, name)]
    return ", ".join(f"{name} {getattr(baseline, name)}, and the config {getattr(config, name)}" for name in names)


def plain_of(config: ViTConfig) -> ViTConfig:
    """The network of the same sizes with every axis at its default."""
    arch = parse_arch(config.arch, config.stem).full_name
    return resolve(ViTConfig(arch=arch, image_size=config.image_size, classes=config.classes))


def subject_of(config: ClassifyConfig, baseline: ViTConfig, seed: int) -> Subject:
    """What the checks are given; both configs are resolved."""

    def optimize(network: Any) -> Any:
        return build_optimizer(config, network.named_parameters())

    return Subject(network_config(config), network_config(baseline), seed, optimize)


def certified(model: Mapping[str, Any], baseline: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The certificate of an arm against its baseline, from their options of `model` as records hold them.

    A baseline of other data is replaced by the network with every axis at its default.
    """
    config, other = (resolve(ClassifyConfig(**options)) for options in (model, baseline))
    subject = subject_of(config, plain_of(config) if _other_task(config, other) else other, seed)
    return document(subject, certify(subject))


def shown(subject: Subject, lines: Sequence[Line]) -> str:
    """The certificate as a table."""
    config = subject.config
    differs = [f"{name} {here} against {there}" for name, (here, there) in subject.changed.items()]
    head = f"{parse_arch(config.arch, config.stem).full_name}, {config.image_size} pixels, {config.classes:,} classes"
    width = max(len(line.check) for line in lines)
    counts = [f"{sum(line.verdict == kind for line in lines)} {words}" for kind, words in _VERDICTS.items()]
    return "\n".join(
        [
            f"{head}: {', '.join(differs) or 'the baseline itself'}",
            *(f"  {line.check:{width}}  {line.verdict:8}  {line.text}" for line in lines),
            f"{len(lines)} checks: {', '.join(counts)}",
        ]
    )


_VERDICTS = {"holds": "hold", "FAILS": "fail", "reported": "reported"}


def document(subject: Subject, lines: Sequence[Line]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "schema": SCHEMA,
        "arch": parse_arch(subject.config.arch, subject.config.stem).full_name,
        "image_size": subject.config.image_size,
        "classes": subject.config.classes,
        "changed": {name: {"here": here, "baseline": there} for name, (here, there) in subject.changed.items()},
        "holds": not any(line.verdict == "FAILS" for line in lines),
        "checks": [{"check": line.check, "verdict": line.verdict.lower(), "text": line.text} for line in lines],
    }
