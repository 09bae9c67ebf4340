"""An arm of a study: one configuration with the finished run of each seed."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitexp.record import RunRecord, flatten, result_config

# Whether a run trained, and for as long as it was meant to: what its record shows.

_ERRORS = 2.0
"""Standard errors above the chance level up to which an accuracy cannot be distinguished from guessing."""
_ROUNDED = 0.98
"""Share of the epochs from which on they count as done: the last batch of an epoch may be dropped."""


def why_untrained(run: RunRecord) -> str:
    """What shows that a run did not train; empty for a run that did, and for one whose record does not say."""
    if run.steps == 0:
        return "it took no step"
    start, end = _losses(run)
    if start is not None and end is not None and not end < start:
        return f"training loss {start:.4g} at the start, {end:.4g} at the end"
    for metric in ("test_acc", "val_acc"):
        accuracy, chance = run.metrics.get(metric), chance_of(run)
        if accuracy is not None and chance is not None and at_chance(accuracy, chance, run):
            return f"{metric} {100 * accuracy:.1f} %, and guessing gives {100 * chance:.1f} %"
    return ""


def chance_of(run: RunRecord) -> float | None:
    """The accuracy of guessing: the share of the largest class, or an equal share of all classes."""
    classes = run.data.get("classes")
    return run.learning.get("chance_acc", 1 / classes if classes and classes > 1 else None)


def at_chance(accuracy: float, chance: float, run: RunRecord) -> bool:
    """Whether an accuracy cannot be distinguished from guessing, by the number of test images where it is known."""
    images = run.data.get("test_images")
    error = math.sqrt(chance * (1 - chance) / images) if images else 0.0
    return not accuracy > chance + _ERRORS * error


def stopped_at(run: RunRecord) -> str:
    """How far a run came that did not take its last planned step."""
    plan = f" of {run.planned_steps:,}" if run.planned_steps is not None else ""
    reached = f" at {run.steps:,}{plan} steps" if run.steps is not None else ""
    return f"stopped{reached}" + (f": {run.reason}" if run.reason else "")


def cut_short(run: RunRecord) -> str:
    """How a run of the first record format ended before its config says, though it counts as finished there."""
    if run.format > 1:
        return ""  # since then such a run says "stopped"
    config = flatten(run.config)
    steps, epochs = (_limit(config.get(f"trainer.{key}")) for key in ("max_steps", "max_epochs"))
    if run.steps is None or (steps is not None and run.steps >= steps):
        return ""
    if epochs is None:
        return f"stopped at {run.steps:,} of {steps:,} steps" if steps is not None else ""
    if run.epochs is None or run.epochs >= _ROUNDED * epochs:
        return ""
    return f"stopped at {run.steps:,} steps, in epoch {run.epochs:.3g} of {epochs}"


def _limit(value: object) -> int | None:
    """A limit of the trainer, which is absent where it is -1 or not set."""
    return value if type(value) is int and value > 0 else None


def _losses(run: RunRecord) -> tuple[float | None, float | None]:
    """The training loss at the start and at the end; of old records that of the first epoch and of the last."""
    if run.learning:
        return run.learning.get("train_loss_start"), run.learning.get("train_loss_end")
    curve: Sequence[tuple[int, float]] = run.curves.get("train_loss", ())
    return (curve[0][1], curve[-1][1]) if len(curve) > 1 else (None, None)


# Whether runs belong together: what differs between records apart from what a study varies on purpose.

# The folder of a data set is no part of a fingerprint; what it held is.
_DATA_IDENTITY = ("name", "classes", "test_images")
_LENGTH = ("trainer.max_epochs", "trainer.max_steps", "data.batch_size", "data.train_images", "data.train_fraction")
FOLLOWS = {"run.init": "run.init_content", "model.arch": "model.stem"} | dict.fromkeys(_LENGTH, "model.warmup_steps")
"""What a factor brings with it: a file its content, the name of a network the way in which it takes images, the length
of a run its warm-up, where that is a share of it."""
_ABSENT = "(absent)"


def check_alike(arms: Iterable[Sequence[RunRecord]], keys: Sequence[str], folder: Path | str) -> None:
    """Accepts arms whose finished runs differ in the seed and in the studied `keys` alone.

    Raises: ValueError naming the other differences, how many runs have which value, and how to choose.
    """
    done = [finished_runs(arm) for arm in arms]
    mixed = list(dict.fromkeys(key for arm in done for key in _varying(arm, keys)))
    if not mixed:
        return
    every = [record for arm in done for record in arm]
    held = "; ".join(f"{key}: {value_counts(every, key)}" for key in mixed)
    newest = max(every, key=lambda record: record.finished or "")
    raise ValueError(
        f"{folder} holds runs of the same cell that were configured differently: {held}; "
        f"choose one kind, such as --where {mixed[0]}={_bare(flat_config(newest).get(mixed[0]))}"
    )


def other_differences(arms: Iterable[Sequence[RunRecord]], keys: Sequence[str]) -> list[str]:
    """What else differs between finished runs: settings that go with the arm, and repetitions."""
    done = [finished_runs(arm) for arm in arms]
    every = [record for arm in done for record in arm]
    more = "the arms differ in more than the studied factors"
    found = [f"{more}: {key} is {value_counts(every, key)}" for key in unstudied_differences(every, keys)]
    twice = len(every) - len({(record.fingerprint, record.seed) for record in every})
    if twice:
        found.append(f"{runs_text(twice)} of a cell and seed that had been run before: the newest counts")
    return found


def unstudied_differences(records: Sequence[RunRecord], keys: Sequence[str]) -> list[str]:
    """The settings in which records differ, apart from the studied `keys` and what follows from them."""
    return [key for key in _varying(records, keys) if key not in _following(keys)]


def finished_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records that hold the result of a whole training."""
    return [record for record in records if record.status == "finished" and not cut_short(record)]


def flat_config(record: RunRecord) -> dict[str, Any]:
    """The config of a run as dotted keys, and which data it saw."""
    return flatten(record.config) | _identity(record)


def value_counts(records: Iterable[RunRecord], key: str) -> str:
    """The values of a key among records, in words: `10 (5 runs), 30 (2 runs)`."""
    return _listed(Counter(_bare(flat_config(record).get(key, _ABSENT)) for record in records))


def spelling(value: Any) -> str:
    """One spelling for values that mean the same: 1 and 1.0, (1,) and [1], the number 0.001 and the text 1e-3."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


text = spelling  # its old name, by which report/ still calls it


def _following(keys: Sequence[str]) -> set[str]:
    """What cannot but differ where the studied keys do: the chosen images, and all of a data set with its name."""
    follows = {"data.subset"} if any(key.startswith("data.") for key in keys) else set()
    follows |= {word for key, word in FOLLOWS.items() if key in keys}
    if not {"data.shards", "data.name"}.isdisjoint(keys):
        follows |= {"data.content", *(f"data.{key}" for key in _DATA_IDENTITY)}
    return follows


def is_number(value: Any) -> bool:
    """Whether a value is a number; a switch is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _varying(records: Sequence[RunRecord], keys: Sequence[str]) -> list[str]:
    studied = {*keys, "seed_everything"}
    residues = [{**result_config(record.config), **_identity(record)} for record in records]
    names = dict.fromkeys(key for residue in residues for key in residue if key not in studied)
    return [key for key in names if len({spelling(residue.get(key, _ABSENT)) for residue in residues}) > 1]


def _identity(record: RunRecord) -> dict[str, Any]:
    return {f"data.{key}": record.data[key] for key in _DATA_IDENTITY if key in record.data}


def _listed(values: Counter[str]) -> str:
    most_first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{value} ({runs_text(count)})" for value, count in most_first)


def runs_text(count: int) -> str:
    """A number of runs with its noun."""
    return f"{count} run" if count == 1 else f"{count} runs"


def _bare(value: Any) -> str:
    return spelling(value).strip('"')


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, str | float):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration of a study: the studied factors, the tuned values, and the finished run of each seed.

    `tuning_runs` is how many runs the tuned values were chosen from, `grids` the values that were tried of each.
    """

    factors: Mapping[str, Any]
    tuned: Mapping[str, Any] = field(default_factory=dict)
    tuning_runs: int = 0
    grids: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    asked: tuple[int, ...]
    runs: Mapping[int, RunRecord] = field(default_factory=dict)
    unfinished: Mapping[int, str] = field(default_factory=dict)

    def values(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the finished runs that hold it as a finite number."""
        held = {seed: run.metrics.get(metric) for seed, run in sorted(self.runs.items())}
        return {seed: value for seed, value in held.items() if value is not None and abs(value) < float("inf")}


def name(arm: Arm) -> str:
    """The arm by the keys and values of the study file."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in arm.factors.items()) or "the only arm"
