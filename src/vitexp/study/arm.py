"""An arm of a study: one configuration with the finished run of each seed, and whether its runs are what they seem."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from vitexp.axes import factor_of
from vitexp.metrics import is_share
from vitexp.record import FOLLOW, RunRecord, flatten, option, result_config, subset_follows
from vitexp.stats import proportion_interval
from vitexp.study.cells import SEED
from vitexp.study.trained import why_untrained

FOLLOWS = {"run.init": "run.init_content", "model.arch": "model.stem"} | dict.fromkeys(
    ("trainer.max_epochs", "trainer.max_steps", "data.batch_size", "data.train_images", "data.train_fraction"),
    "model.warmup_steps",
)
"""What a factor brings with it: a file its content, the name of a network the way in which it takes images, the length
of a run its warm-up, where that is a share of it."""
_DATA_IDENTITY = ("name", "classes", "test_images")
"""The folder of a data set is no part of a fingerprint; what it held is."""
_ABSENT = "(absent)"
_spell = json.JSONEncoder(sort_keys=True, default=str).encode
_NEUTRAL = ("wandb", "vitexp")
"""Packages that move no number; of our own the source counts."""
_UNLIKE = "the runs were not made by the same code, on the same machine, with the same images"


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

    @cached_property
    def spelled(self) -> str:
        """Its factors in one spelling, by which arms are compared again and again."""
        return spelling(dict(self.factors))

    @cached_property
    def settings(self) -> dict[int, dict[str, Any]]:
        """How the run of each seed was configured; one object for all that were configured alike."""
        kinds = {_kind(run): run for run in self.runs.values()}
        known = {kind: _settings_of(run) for kind, run in kinds.items()}
        return {seed: known[_kind(run)] for seed, run in self.runs.items()}

    @cached_property
    def samples(self) -> dict[Any, Any]:
        """What `vitexp.study.samples` has read of it."""
        return {}

    @cached_property
    def untrained(self) -> dict[int, str]:
        """The seeds of the runs that did not train, and what shows it."""
        return {seed: why for seed, run in sorted(self.runs.items()) if (why := why_untrained(run))}

    @property
    def trained(self) -> Mapping[int, RunRecord]:
        """The runs that numbers are about: those that trained, or all where none did."""
        kept = {seed: run for seed, run in self.runs.items() if seed not in self.untrained}
        return kept or self.runs

    def values(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the finished runs that trained and hold it as a finite number."""
        held = {seed: run.metrics.get(metric) for seed, run in sorted(self.trained.items())}
        return {seed: value for seed, value in held.items() if value is not None and abs(value) < float("inf")}


def name(arm: Arm) -> str:
    """The arm by the keys and values of the study file."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in arm.factors.items()) or "the only arm"


def is_number(value: Any) -> bool:
    """Whether a value is a number; a switch is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def spelling(value: Any) -> str:
    """One spelling for values that mean the same: 1 and 1.0, (1,) and [1], the number 0.001 and the text 1e-3."""
    return _spell(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, dict | Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, str | float):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


def differing_keys(mappings: Sequence[Mapping[str, Any]], absent: Any = None) -> list[str]:
    """The keys whose values differ, in the order in which they come up; one without a key has `absent` there."""
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return [key for key in keys if len({spelling(mapping.get(key, absent)) for mapping in mappings}) > 1]


def flat_config(record: RunRecord) -> dict[str, Any]:
    """The config of a run as dotted keys, and which data it saw."""
    return flatten(record.config) | _identity(record)


def _identity(record: RunRecord) -> dict[str, Any]:
    return {f"data.{key}": record.data[key] for key in _DATA_IDENTITY if key in record.data}


def value_counts(records: Iterable[RunRecord], key: str) -> str:
    """The values of a key among records, in words: `10 (5 runs), 30 (2 runs)`."""
    held = Counter(spelling(flat_config(record).get(key, _ABSENT)).strip('"') for record in records)
    most_first = sorted(held.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{value} ({_runs(count)})" for value, count in most_first)


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


# Whether runs belong together: what differs between records apart from what a study varies on purpose.


def check_alike(arms: Sequence[Sequence[RunRecord]], keys: Sequence[str], location: str) -> list[str]:
    """What else differs between the runs of arms than the seed and the studied `keys`: settings that go with the arm,
    and repetitions.

    Raises: ValueError where the runs of one arm differ, naming in what, how many have which value, and how to choose.
    """
    every = [record for arm in arms for record in arm]
    if mixed := list(dict.fromkeys(key for arm in arms for key in _varying(_settings(arm), keys))):
        held = "; ".join(f"{key}: {value_counts(every, key)}" for key in mixed)
        newest = max(every, key=lambda record: record.finished or "")
        bare = spelling(flat_config(newest).get(mixed[0])).strip('"')
        raise ValueError(
            f"{location} holds runs of the same cell that were configured differently: {held}; "
            f"choose one kind, such as --where {mixed[0]}={bare}"
        )
    more = "the arms differ in more than the studied factors"
    found = [f"{more}: {key} is {value_counts(every, key)}" for key in unstudied_differences(_settings(every), keys)]
    known = {(record.fingerprint, record.seed): record.cell for record in every}
    times = Counter((record.fingerprint, record.seed) for record in every)
    twice = [f"{known[key]} seed {key[1]}" for key, count in times.items() if count > 1]
    return [*found, *clause("run more than once, of which the newest counts", twice, 3)]


def unstudied_differences(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Of the settings of records those that differ, but for the studied `keys` and what cannot but follow from them."""
    follows = {"data.subset"} if any(key.startswith("data.") for key in keys) else set()
    follows |= {word for key, word in FOLLOWS.items() if key in keys}
    if not {"data.shards", "data.name"}.isdisjoint(keys):
        follows |= {"data.content", *(f"data.{key}" for key in _DATA_IDENTITY)}
    parts = {key for key in keys if len({spelling(one.get(key)) for one in settings}) > 1}
    return [key for key in _varying(settings, keys) if key not in follows and factor_of(key) not in parts]


def _varying(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    if len(settings) < 2:
        return []
    drawn = {"data.subset"} if any(map(subset_follows, settings)) else set()
    return [key for key in differing_keys(settings, _ABSENT) if key not in {*keys, SEED} | drawn]


def _settings(records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    """How records were configured, seed apart: once for all that were configured alike."""
    return [_settings_of(record) for record in {_kind(record): record for record in records}.values()]


def _settings_of(record: RunRecord) -> dict[str, Any]:
    return result_config(record.config) | _identity(record)


def _kind(record: RunRecord) -> tuple[Any, ...]:
    """The same for records that were configured alike but for the seed, and whose reader let them share equal parts."""
    parts = ((key, id(value)) for key, value in record.config.items() if key != SEED)
    return (*parts, id(record.data))


def instability(arm: Arm) -> str:
    """How many runs of an arm did not train, where others did; such an arm is no single thing to compare."""
    if members := getattr(arm, "members", ()):  # of a mean over data sets
        return next(filter(None, map(instability, members)), "")
    count, all_runs = len(arm.untrained), len(arm.runs)
    return f"{count} of {_runs(all_runs)} did not train" if 0 < count < all_runs else ""


# What a reader must know before the first number: runs that did not train, or that were not made alike.


def run_cautions(arms: Sequence[Arm]) -> list[str]:
    """One clause for each thing in which the finished runs behind the numbers are not what they seem."""
    wrong = [
        f"{run_name} ({metric} {value:g})"
        for run_name, run in _named(arms)
        for metric, value in run.metrics.items()
        if is_share(metric) and not 0 <= value <= 1 and value == value
    ]
    lengths: dict[str, list[Arm]] = {}  # arms that no setting of data or trainer tells apart
    for arm in arms:
        settings = {**arm.factors, **arm.tuned}
        length = {key: value for key, value in settings.items() if key.startswith(("data.", "trainer."))}
        lengths.setdefault(spelling(length), []).append(arm)
    uneven = [text for group in lengths.values() if (text := _differences(group, _length))]
    packages = {one: None for arm in arms for run in arm.runs.values() for one in run.versions if one not in _NEUTRAL}
    origins = _differences(arms, partial(_origin, list(packages)))
    return [
        *untrained(arms),
        *clause("accuracies that are no share of images between 0 and 1", wrong),
        *(f"runs that should have trained equally long did not: {text}" for text in uneven),
        *([f"{_UNLIKE}: {origins}"] if origins else []),
    ]


def untrained(arms: Sequence[Arm]) -> list[str]:
    """The arms of which runs did not train: how often, with the interval of that rate, and what shows it."""
    found = []
    for arm in arms:
        if count := len(arm.untrained):
            share, (low, high) = count / len(arm.runs), proportion_interval(count, len(arm.runs))
            rate = f"{100 * share:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
            what = "left out" if count < len(arm.runs) else "none of them, so all count"
            seeds = cut([f"seed {seed}: {why}" for seed, why in arm.untrained.items()], 2, "; ")
            found.append(f"{name(arm)} ({count} of {_runs(len(arm.runs))}, {rate}; {what}; {seeds})")
    return clause("did not train", found, between="; ")


def _length(run: RunRecord) -> dict[str, Any]:
    return {"steps taken": run.steps, "planned steps": run.planned_steps, "images seen": run.images_seen}


def _origin(packages: Sequence[str], run: RunRecord) -> dict[str, Any]:
    """Code, versions, device, measured images and format; old records hold a commit in place of the source's hash."""
    code, device, orders = run.code, run.device, dict(run.data.get("order_fingerprints") or {})
    if option(run.config, "data.val_seed") == FOLLOW:
        orders["val"] = "by seed"
    source = f"source {str(code['source'])[:8]}" if code.get("source") else None
    if not source and code.get("commit"):
        source = f"commit {str(code['commit'])[:7]}{' with changes' if code.get('dirty') else ''}"
    kind, ranks = device.get("name") or device.get("type"), device.get("world_size")
    images = f"images of {run.data.get('name')}"
    return {
        "source code": source,
        **{f"version of {package}": run.versions.get(package) for package in packages},
        "device": f"{kind} x {ranks}" if kind and ranks not in (None, 1) else kind,
        "threads": device.get("threads") if device.get("type") == "cpu" else None,
        **{f"{split} {images}": str(orders.get(split, ""))[:8] or None for split in ("val", "test")},
        "format of the record": run.format,
    }


def _differences(arms: Sequence[Arm], read: Callable[[RunRecord], dict[str, Any]]) -> str:
    """Of each fact in which runs differ the values with the runs that have each, most common first."""
    facts: dict[str, dict[str, list[str]]] = {}
    for run_name, run in _named(arms):
        for what, value in read(run).items():
            text = "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
            facts.setdefault(what, {}).setdefault(text, []).append(run_name)
    texts = []
    for what, held in facts.items():
        (common, theirs), *others = sorted(held.items(), key=lambda item: -len(item[1]))
        listed = [f"{common} ({_runs(len(theirs))})", *(f"{value} ({cut(names)})" for value, names in others)]
        texts += [f"{what}: {', '.join(listed)}"] if others else []
    return "; ".join(texts)


def _named(arms: Sequence[Arm]) -> list[tuple[str, RunRecord]]:
    return [(f"{name(arm)} seed {seed}", run) for arm in arms for seed, run in sorted(arm.runs.items())]


def clause(words: str, found: Sequence[str], most: int = 4, between: str = ", ") -> list[str]:
    """The words and what they are about, as a list of one; empty where that is nothing."""
    return [f"{words}: {cut(found, most, between)}"] if found else []


def cut(names: Sequence[str], most: int = 4, between: str = ", ") -> str:
    """A list of which the first few are named."""
    more = f"{between}and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
