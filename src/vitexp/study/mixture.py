"""Whether runs belong together: what differs between records apart from what a study varies on purpose."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.record import RunRecord, flatten, result_config
from vitexp.study.trained import cut_short

# The folder of a data set is no part of a fingerprint; what it held is.
_DATA_IDENTITY = ("name", "classes", "test_images")
_LENGTHS = ("trainer.max_epochs", "trainer.max_steps", "data.batch_size", "data.train_images", "data.train_fraction")
FOLLOWS = {"run.init": "run.init_content", "model.arch": "model.stem"} | dict.fromkeys(_LENGTHS, "model.warmup_steps")
"""What a factor brings with it: a file its content, the name of a network the way in which it takes images, the length
of a run its warm-up, where that is a share of it."""
_ABSENT = "(absent)"


def refuse(arms: Iterable[Sequence[RunRecord]], keys: Sequence[str], folder: Path | str) -> None:
    """Accepts arms whose finished runs differ in the seed and in the studied `keys` alone.

    Raises: ValueError naming the other differences, how many runs have which value, and how to choose.
    """
    done = [finished(arm) for arm in arms]
    mixed = list(dict.fromkeys(key for arm in done for key in _varying(arm, keys)))
    if not mixed:
        return
    every = [record for arm in done for record in arm]
    held = "; ".join(f"{key}: {counts(every, key)}" for key in mixed)
    newest = max(every, key=lambda record: record.finished or "")
    raise ValueError(
        f"{folder} holds runs of the same cell that were configured differently: {held}; "
        f"choose one kind, such as --where {mixed[0]}={_bare(flat(newest).get(mixed[0]))}"
    )


def notes(arms: Iterable[Sequence[RunRecord]], keys: Sequence[str]) -> list[str]:
    """What else differs between finished runs: settings that go with the arm, and repetitions."""
    done = [finished(arm) for arm in arms]
    every = [record for arm in done for record in arm]
    more = "the arms differ in more than the studied factors"
    found = [f"{more}: {key} is {counts(every, key)}" for key in beyond(every, keys)]
    twice = len(every) - len({(record.fingerprint, record.seed) for record in every})
    if twice:
        found.append(f"{runs_text(twice)} of a cell and seed that had been run before: the newest counts")
    return found


def beyond(records: Sequence[RunRecord], keys: Sequence[str]) -> list[str]:
    """The settings in which records differ, apart from the studied `keys` and what follows from them."""
    return [key for key in _varying(records, keys) if key not in _following(keys)]


def finished(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records that hold the result of a whole training."""
    return [record for record in records if record.status == "finished" and not cut_short(record)]


def flat(record: RunRecord) -> dict[str, Any]:
    """The config of a run as dotted keys, and which data it saw."""
    return flatten(record.config) | _identity(record)


def counts(records: Iterable[RunRecord], key: str) -> str:
    """The values of a key among records, in words: `10 (5 runs), 30 (2 runs)`."""
    return _listed(Counter(_bare(flat(record).get(key, _ABSENT)) for record in records))


def text(value: Any) -> str:
    """One spelling for values that mean the same: 1 and 1.0, (1,) and [1], the number 0.001 and the text 1e-3."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


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
    return [key for key in names if len({text(residue.get(key, _ABSENT)) for residue in residues}) > 1]


def _identity(record: RunRecord) -> dict[str, Any]:
    return {f"data.{key}": record.data[key] for key in _DATA_IDENTITY if key in record.data}


def _listed(values: Counter[str]) -> str:
    most_first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{value} ({runs_text(count)})" for value, count in most_first)


def runs_text(count: int) -> str:
    """A number of runs with its noun."""
    return f"{count} run" if count == 1 else f"{count} runs"


def _bare(value: Any) -> str:
    return text(value).strip('"')


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
