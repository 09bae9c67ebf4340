"""The record of a run: the file format in which the training wing and the study wing meet.

A record is written once as "running" and once as "finished", "stopped" or "failed", each time atomically. Nothing else
says whether a run is done: a terminated process may exit with status 0. "finished" means that the last planned step was
taken; "stopped" means that training ended before it, with the reason and both numbers of steps.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO, get_type_hints
from uuid import uuid4

from vitexp import axes
from vitexp.checked import Shared, checked, checked_once
from vitexp.json_text import plain
from vitexp.metrics import learn, split_of
from vitexp.neutral import PARTS, counted

RECORD_NAME = "record.json"
STATUSES = ("running", "finished", "stopped", "failed")
FORMAT = 2
"""Version of the record's format. Records of format 1 have no planned steps, no answers and no learning."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_LIMIT = re.compile(r"trainer\.(limit_\w+_batches|val_check_interval)")

_ADDED: dict[str, Any] = {
    "model.gelu": "tanh", "model.pos_std": None, "model.options": {}, "model.sources": {}, "run.fewer_shots": False,
    "data.options": {}, "data.sources": {}, "run.evaluators": [], "run.options": {}, "run.sources": {},
    "run.compile": False, "run.matmul_precision": "highest", "data.val_seed": 0,
    "model.betas": None, "model.eps": None, "model.layer_decay": 1.0, "model.warmup_epochs": 0.0, "model.min_lr": 0.0,
    "data.crop_scale": [0.05, 1.0], "data.crop_ratio": [3 / 4, 4 / 3], "data.crop_padding": None,
    "data.auto_augment": "none", "data.color_jitter": 0.0, "data.random_erasing": 0.0, "data.repeats": 1,
    "data.mixup_alpha": 0.8, "data.cutmix_alpha": 1.0, "data.mix_prob": 1.0, "data.switch_prob": 0.5,
    "model.registers": 0, "model.block": "sequential", "model.norm": "layer", "model.mlp": "gelu",
    "model.qk_norm": False, "model.layer_scale": 0.0, "model.drop_path": 0.0, "model.patch_dropout": 0.0,
    "model.pos_join": "add",
}  # fmt: skip
"""Options that came later, with what runs did before: at that value they do not count, so old fingerprints hold."""
FOLLOW = "follow"
"""A seed of the data that is that of the run: the training images or the validation slice vary with it."""
_OWN_STD = {"1d": 0.02, "2d": 0.02}
"""Where the tables of these positions start anyway; stated as model.pos_std it does not count either."""

_COUNTS = {"name": str, "train_images": int, "test_images": int, "classes": int}
"""Facts of the data that readers compute with, where they are recorded."""
_ALIKE = {"config", "data", "code", "versions", "device", "files"}
"""Fields that are equal in many runs of a study."""
_GROUPS = {"model", "data", "trainer", "run", "study"}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run: what was asked, what came out. A number that was not measured is absent, never 0.

    Accuracies are shares (0 to 1), times are in seconds. A run is done where `status` is "finished", and nowhere else.

    >>> RunRecord(study="demo", cell="a", seed=0, fingerprint="0" * 12, status="running", config={}).metrics
    {}

    Raises: ValueError for any other status than running, finished, stopped and failed.
    """

    study: str
    cell: str
    seed: int
    fingerprint: str
    status: str
    reason: str | None = None
    config: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    parameters: int | None = None
    train_flops: float | None = None
    images_seen: int | None = None
    steps: int | None = None
    planned_steps: int | None = None
    """Optimizer steps that the config asks for; `steps` are those taken."""
    epochs: float | None = None
    train_seconds: float | None = None
    compile_seconds: float | None = None
    """What `run.compile` took before the first step; no part of `train_seconds`."""
    learning: dict[str, float] = field(default_factory=dict)
    """What shows whether a run trained: train_loss_start, train_loss_end, chance_acc, chance_loss."""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """One packed bit per image that was measured, by metric (test_acc, fewshot_5/draw-0): file, images, right, sha256,
    and the fingerprint of the order of the images."""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each part of the user's own, by option (model.pos_embed): its path as `value`, label, file, source, declared
    properties, and the parameters that it has."""
    data: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    started: str = ""
    finished: str | None = None
    format: int = FORMAT
    directory: str | None = field(default=None, compare=False)
    """The folder that it was read from; never written."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")


def write_atomically(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Puts `content` at `path` whole or not at all, also when the machine stops in the middle."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path, path.with_name(f".{path.name}.{uuid4().hex}.tmp")) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            os.chmod(file.name, 0o644)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file it had no room for
        raise


def check_folder(folder: Path, name: str = "--out") -> None:
    """Raises: ValueError where nothing can be written to it, or where it would be, before anything is computed."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        probe = there / f".{uuid4().hex}.probe"
        write_atomically(probe, "")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{name} {folder} cannot be written to ({error.strerror}); name another folder") from error


@contextmanager
def whole_file(path: Path, unfinished: Path) -> Iterator[BinaryIO]:
    """A large file: it grows as `unfinished`, and takes its name when the block ends without error, all on disk."""
    try:
        with open(unfinished, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_record(record: RunRecord, directory: str | os.PathLike[str]) -> Path:
    """Writes `directory/record.json`; non-finite numbers become their names, so that any JSON reader can read it."""
    path = Path(directory) / RECORD_NAME
    stored = {key: value for key, value in asdict(record).items() if key != "directory"}
    write_atomically(path, json.dumps(plain(stored, str), indent=1, allow_nan=False) + "\n")
    return path


def read_record(path: str | os.PathLike[str], shared: Shared | None = None) -> RunRecord:
    """Reads a record file or the one in a run directory; parts that `shared` holds already become the same object.

    Raises: ValueError naming the file when it is not a whole record.
    """
    path = Path(path)
    path = path / RECORD_NAME if path.is_dir() else path
    try:
        record = record_of({"format": 1, **json.loads(path.read_text(encoding="utf-8"))}, shared)
        object.__setattr__(record, "directory", str(path.parent))  # of one that nobody else has yet
        return record
    except (TypeError, ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not a run record ({why}); move it away and run the cell again") from error


def record_of(stored: Mapping[str, Any], shared: Shared | None = None) -> RunRecord:
    """The record that plain values from a file or a server describe; unknown fields are passed over.

    Records made with the same `shared` have their equal parts in common.
    Raises: ValueError for a field of another type than `RunRecord` declares, or one that is missing.
    """
    types = _types()
    given = {name: _part(name, value, types[name], shared) for name, value in stored.items() if name in types}
    if missing := [f for f in ("study", "cell", "seed", "fingerprint", "status", "config") if f not in given]:
        raise ValueError(f"it has no {missing[0]}")
    for key in _COUNTS.keys() & given.get("data", {}).keys():
        checked(given["data"][key], _COUNTS[key], f"data.{key}")
    for group in _GROUPS & given["config"].keys():
        if type(given["config"][group]) is not dict:
            checked(given["config"][group], dict[str, Any], f"config.{group}")
    drawn = given["config"].get("seed_everything", given["seed"])
    if type(drawn) is int and drawn != given["seed"]:
        raise ValueError(f"seed is {given['seed']}, but the config says seed_everything {drawn}")
    record = RunRecord(**given)
    axes.learn(record.parts)
    learn(record.parts)
    if record.format > 1 or not PARTS.keys() & result_config(record.config).keys():
        return record
    return replace(record, fingerprint=fingerprint(record.config))  # format 1 did not count callbacks and their like


def _part(name: str, value: Any, kind: Any, shared: Shared | None) -> Any:
    """A field, checked; groups of the config are shared one by one, for the seed alone differs in every run."""
    if shared is None or name not in _ALIKE:
        return checked(value, kind, name)
    if name != "config" or type(value) is not dict:
        return checked_once(value, kind, name, shared)
    return {
        intern(checked(key, str, name)): checked_once(item, Any, f"{name}.{key}", shared, 1)
        for key, item in value.items()
    }


@cache
def _types() -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(RunRecord).items() if name != "directory"}


def read_records(root: str | os.PathLike[str]) -> tuple[list[RunRecord], list[str]]:
    """Every sound record below `root` in the order of their paths, and a sentence for each that cannot be read.

    Parts that are equal, such as the settings of a trainer, are one object in all of them: do not change any.

    >>> records, damaged = read_records("runs")
    >>> [record.metrics["test_acc"] for record in records if record.status == "finished"]
    []
    """
    records, damaged, shared = [], [], Shared()
    for path in sorted(Path(root).rglob(RECORD_NAME)):
        try:
            if not path.is_file():
                raise ValueError(f"{path} is not a file")
            records.append(read_record(path, shared))
        except ValueError as error:
            damaged.append(str(error))
        except OSError as error:
            damaged.append(f"{path} cannot be read ({error.strerror})")
    return records, damaged


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as dotted keys; lists, empty mappings, and parts named by their class stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict | Mapping) and value and "class_path" not in value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def option(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """One option of a nested config by its dotted key, as `flatten` has it."""
    around = {name: value for name, value in config.items() if key == name or key.startswith(f"{name}.")}
    return flatten(around).get(key, default)


def is_candidate(config: Mapping[str, Any]) -> bool:
    """Whether a run is one of several that an arm is chosen from (`study.tune`)."""
    return bool(option(config, "study.tune"))


def open_metrics(metrics: Mapping[str, float], config: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that may be shown while arms are tuned: of a candidate all but those of the test images.

    Who sees these before the choice chooses by them; they are in the record, where `vitexp table` reads the chosen's.
    """
    hidden = is_candidate(config)
    return {name: value for name, value in metrics.items() if not (hidden and split_of(name) == "test")}


def result_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys of `config` that can change a run's numbers: all but those of `vitexp.neutral`."""
    flat = sorted(counted(flatten(config)).items())
    found = {key: value for key, value in flat if key not in _ADDED or value != _ADDED[key]}
    if found.get("model.pos_std") == _OWN_STD.get(str(found.get("model.pos_embed"))):
        found.pop("model.pos_std", None)
    return found


def fingerprint(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of what can change a run's numbers, the seed included."""
    flat = {key: canonical(key, value) for key, value in result_config(config).items()}
    return digest(flat)[:12]


def digest(value: object) -> str:
    """16 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def cell_fingerprint(config: Mapping[str, Any]) -> str:
    """The same with the seed left out: equal for all replicates of one cell."""
    flat = flatten(config)
    drawn = {"seed_everything", "data.subset"} if subset_follows(flat) else {"seed_everything"}
    return fingerprint({key: value for key, value in flat.items() if key not in drawn})


def subset_follows(flat: Mapping[str, Any]) -> bool:
    """Whether each seed trains on images of its own, by the dotted keys of a config; `data.subset` then differs."""
    return FOLLOW in (flat.get("data.subset_seed"), flat.get("data.val_seed"))


def check_name(name: str, where: str) -> None:
    """Raises: ValueError for what is no plain name of a folder, such as a study's."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{where} is {name[:60]!r}, which is no directory name; use up to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )


def measured_elsewhere(record: RunRecord, orders: Mapping[str, str]) -> str | None:
    """The split whose images or labels are others than those that a run was measured on; None where all are the same.

    `orders` are the fingerprints of the evaluated images by split. They are no part of a run's fingerprint, which is
    about training; records of format 1 do not hold them.
    """
    known = record.data.get("order_fingerprints") or {}
    return next((split for split in known.keys() & orders.keys() if known[split] != orders[split]), None)


def run_mark(record: RunRecord) -> str:
    """12 hexadecimal digits of one training: trained again, a run has another."""
    return hashlib.sha256(f"{record.fingerprint} {record.finished}".encode()).hexdigest()[:12]


def cache_root() -> Path:
    """The directory for everything that is saved for later: VITEXP_CACHE, or else ~/.cache/vitexp."""
    return Path(os.environ.get("VITEXP_CACHE") or Path.home() / ".cache" / "vitexp")


def run_directory(root: str | os.PathLike[str], study: str, cell: str, seed: int) -> Path:
    """Where a run keeps its record: root/study/cell/seed-n."""
    return Path(root) / study / cell / f"seed-{seed}"


def canonical(key: str, value: Any) -> Any:
    """1 and 1.0 from two writers are one value, but for limits: to Lightning 1 is one batch, and 1.0 all of them."""
    if value == 1 and isinstance(value, int) and _LIMIT.fullmatch(key):
        return "1 batch"
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
