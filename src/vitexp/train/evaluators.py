"""Evaluators of the user's own (`run.evaluators`): numbers from the logits and labels of all test images."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast, get_args

import lightning as L
import torch
from torch import Tensor

from vitexp import metrics
from vitexp.axes import PATH, is_path
from vitexp.data.module import ShardData
from vitexp.own import SLOTS, Own, Slot, as_it_was, completed, failing, load
from vitexp.train.answers import read_outputs
from vitexp.train.config import RunConfig
from vitexp.train.module import Classifier

SLOT = Slot("evaluators", object, ("measure",))
_MOST_IMAGES = 1000
"""Of which an evaluator is tried on two of each class."""
_SEED = 0


def settled(run: RunConfig) -> RunConfig:
    """The run's options with those of its evaluators, by the names of their classes. Raises: ValueError."""
    if odd := [path for path in run.evaluators if not is_path(path)]:
        raise ValueError(f"run.evaluators has {odd[0]!r}; give a list of classes of your own, each as {PATH}")
    found = _found(run)
    if len(found) < len(run.evaluators):
        raise ValueError(f"run.evaluators is {run.evaluators}; give classes of different names, each once")
    if found and not run.test:
        raise ValueError("run.evaluators has no effect with run.test false; leave it out, or measure the test images")
    metrics.learn(facts(run))
    complete: dict[str, Any] = completed(found, run, dict.fromkeys(found, SLOT), "run")
    return replace(run, **complete)


def check(run: RunConfig, config: Any, data: ShardData) -> None:
    """Tries each on random logits. Raises: ValueError for what could not be measured after training."""
    if run.evaluators and not data.test_count:
        raise ValueError(f"run.evaluators {run.evaluators} measure test images, and {data.name} has none; leave it out")
    if run.evaluators and config.objective != "classify":
        raise ValueError(f"run.evaluators has no effect with model.objective {config.objective}; leave it out")
    taken: dict[str, str] = {}
    images = min(2 * config.classes, _MOST_IMAGES)
    with torch.device("cpu"):
        logits = torch.randn(images, config.classes, generator=torch.Generator().manual_seed(_SEED))
        first, second = (numbers(run, logits, torch.arange(images) % config.classes) for _ in range(2))
    if odd := [name for name, value in first.items() if value != second[name] and value == value]:
        raise ValueError(
            f"an evaluator gives another {odd[0]} when it is asked again; draw by the global generators alone, which "
            "are seeded, and keep nothing"
        )
    for path, own in ((own.path, own) for own in _found(run).values()):
        for name in rows(own):
            if name in taken:
                raise ValueError(f"evaluators {path} and {taken[name]} both give test_{name}; give one another name")
            taken[name] = path


def _found(run: RunConfig) -> dict[str, Own]:
    return {path.rpartition(":")[2]: load(SLOT, path) for path in run.evaluators}


def facts(run: RunConfig) -> dict[str, dict[str, Any]]:
    """What the record says of each: also its metrics, with labels and directions."""
    named = {name: own.facts() | {"metrics": rows(own)} for name, own in _found(run).items()}
    return {f"run.evaluators.{name}": about for name, about in named.items()}


def metrics_of(run: RunConfig) -> dict[str, Any]:
    """What all of them measure, by name."""
    return {name: row for own in _found(run).values() for name, row in rows(own).items()}


def rows(own: Own) -> dict[str, dict[str, Any]]:
    """The metrics that a class declares by `better`, "higher", "lower" or None: of its one number, or by name.

    Raises: ValueError for words that are none, and for a name that is taken.
    """
    declared, unit = getattr(own.kind, "better", ()), getattr(own.kind, "unit", "number")
    named = declared if isinstance(declared, Mapping) else {own.kind.__name__.lower(): declared}
    for name, better in named.items():
        if better not in (*metrics.GOALS, None):
            raise ValueError(
                f"evaluators {own.path} must say which direction of {name} is better, and says {better or None!r}; "
                "write better = 'higher', 'lower' or None, or a mapping of these for several numbers"
            )
        if unit not in get_args(metrics.Unit):
            raise ValueError(
                f"evaluators {own.path} has unit {unit!r}; allowed are {', '.join(get_args(metrics.Unit))}"
            )
        if metrics.is_taken(name):
            raise ValueError(f"evaluators {own.path} gives {name!r}, which is taken or no lower-case name; rename it")
    alone = {} if isinstance(declared, Mapping) else {own.kind.__name__.lower(): own.label}
    return {n: {"label": alone.get(n, n.replace("_", " ")), "better": b, "unit": unit} for n, b in named.items()}


def numbers(run: RunConfig, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """What all of them measure, as `test_NAME`. Shapes: fp32 (N, classes), int64 (N,), both on the CPU.

    Raises: ValueError for one that fails, or gives other numbers than it declares.
    """
    found: dict[str, float] = {}
    for name, own in _found(run).items():
        what, named = f"evaluators {own.path}", rows(own)
        with as_it_was(what, _SEED), failing(what), torch.no_grad():  # what it draws is the same for every run
            options = json.loads(json.dumps(run.options.get(name, {})))
            given = own.kind(**options).measure(logits.clone(), labels.clone())
        given = given if isinstance(given, Mapping) else {next(iter(named)): given}
        if given.keys() != named.keys():
            raise ValueError(f"{what} gives {', '.join(map(str, given))}, and declares {', '.join(named)} as better")
        for key, value in given.items():
            if isinstance(value, Tensor | str | bytes) and getattr(value, "shape", None) != ():
                shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
                raise ValueError(f"{what} gives {shape} as {key}, and must give a number")
            with failing(what):
                found[f"test_{key}"] = float(value)
    return found


class Evaluators(L.Callback):
    """Measures what `run.evaluators` names, once, after training; a `RunRecorder` writes it into the record."""

    def __init__(self, run: RunConfig) -> None:
        self.run = run

    def measure(self, trainer: Any, module: Classifier, data: ShardData) -> dict[str, float]:
        """The numbers, from one reading of all test images. Called on all ranks."""
        network = module.measured.to(trainer.strategy.root_device).eval()
        with trainer.strategy.precision_plugin.forward_context():
            logits, labels = read_outputs(cast(Callable[[Tensor], Tensor], network), data, "test", module.device)
        places = module.places
        return numbers(self.run, logits, labels if places is None else places.cpu()[labels])


def parts_of(run: RunConfig, data: ShardData) -> dict[str, dict[str, Any]]:
    """What the record says of parts of the user's own that are none of the network."""
    how = data.augmentation
    own = {"data.auto_augment": load(SLOTS["auto_augment"], how.auto_augment).facts()} if how.sources else {}
    return own | facts(run)
