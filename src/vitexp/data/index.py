"""The index of a shard set: every sample's key, label and place, so that any of them can be read without looking for
it.

Beside the shards of a split lie `<name>-<split>.index.json`, a shard list in the public `wids-shard-index-v1` shape,
and `<name>-<split>.index.npy`, a table of 24 bytes a sample that is memory-mapped, never loaded: 300 million samples
take 7.2 GB of disk, and of memory only the pages in use.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitexp.data.decode import EXTENSIONS
from vitexp.data.lock import alone
from vitexp.data.scan import ROW, ShardScan, scan_shard
from vitexp.data.tar import BLOCK, BadShard
from vitexp.record import write_atomically

_PATTERN = re.compile(r"(?P<name>.+)-(?P<split>train|test|val|validation)-\d+\.tar")
_KIND = "wids-shard-index-v1"


class Shard(NamedTuple):
    """One tar of the set."""

    name: str
    images: int
    filesize: int
    sha256: str


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """One split of a shard set, opened. Samples are numbered from 0 in the order of shards and of members in them."""

    directory: Path
    name: str
    split: str
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    image_size: tuple[int, int] | None
    """Height and width, where all images have the same."""
    fingerprint: str
    shards: tuple[Shard, ...]
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> Any:
        return open_shards, (self.directory, self.split)

    @property
    def classes(self) -> int:
        """How many classes the set has, over all its splits."""
        return len(self.class_names)

    @property
    def labels(self) -> np.ndarray:
        """int32, one a sample."""
        return self.table["label"]

    @property
    def keys(self) -> np.ndarray:
        """uint64 hashes of the keys."""
        return self.table["key"]

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of the first sample of each shard, and the number of samples at the end."""
        return np.cumsum([0, *(shard.images for shard in self.shards)])

    def shard_of(self, samples: np.ndarray) -> np.ndarray:
        """Which shard each sample lies in."""
        return np.searchsorted(self.starts, samples, side="right") - 1

    def place(self, sample: int) -> tuple[int, int, int, str]:
        """Shard number, first byte, length and extension of a sample's image."""
        row = self.table[sample]
        shard = int(np.searchsorted(self.starts, sample, side="right")) - 1
        return shard, int(row["block"]) * BLOCK, int(row["length"]), EXTENSIONS[int(row["kind"])]

    def read_bytes(self, sample: int) -> bytes:
        """The image of one sample as it lies in its shard. For many, use a reader (read.py)."""
        shard, offset, length, _ = self.place(sample)
        with open(self.directory / self.shards[shard].name, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def where(self, sample: int) -> str:
        """Names a sample for a person: its shard and its key."""
        shard, offset, _, _ = self.place(sample)
        with open(self.directory / self.shards[shard].name, "rb") as file:
            file.seek(max(0, offset - BLOCK))
            name = file.read(100).split(b"\0", 1)[0].decode("utf-8", "replace")
        return f"{self.shards[shard].name}: {name.rpartition('/')[2].partition('.')[0]}"


def find_shards(directory: str | os.PathLike[str]) -> tuple[str, dict[str, list[Path]]]:
    """The name of the set in `directory`, and the shards of each split in their order.

    Tars that carry no split in their names are all taken for `train`.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"there is no directory {directory}; make one with `vitexp shards make SOURCE {directory}`")
    tars = sorted(directory.glob("*.tar"))
    if not tars:
        raise ValueError(f"{directory} holds no shards (*.tar); fill it with `vitexp shards make SOURCE {directory}`")
    matches = [(_PATTERN.fullmatch(tar.name), tar) for tar in tars]
    names = {match["name"] for match, _ in matches if match}
    if len(names) > 1:
        raise ValueError(
            f"{directory} holds shards of {', '.join(sorted(names))}; give each set a directory of its own"
        )
    if not names:
        return directory.resolve().name, {"train": tars}
    splits: dict[str, list[Path]] = {}
    for match, tar in matches:
        if match:
            splits.setdefault("val" if match["split"] == "validation" else match["split"], []).append(tar)
    return names.pop(), splits


def index_shards(directory: str | os.PathLike[str], split: str | None = None, workers: int = 0) -> None:
    """Reads the shards of every split (or of one) and writes their index, whole or not at all.

    Raises: BadShard or BadImage naming the shard and the sample.
    """
    directory = Path(directory)
    name, splits = find_shards(directory)
    for word in [split] if split else splits:
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            _write(directory, name, _known(word, splits, directory), pool.map(scan_shard, splits[word]))


def _known(split: str, splits: Iterable[str], directory: Path) -> str:
    if split not in splits:
        raise ValueError(f"{directory} has no split {split!r}; it has {', '.join(sorted(splits))}")
    return split


def _write(directory: Path, name: str, split: str, scans: Iterable[ShardScan]) -> None:
    scans = list(scans)
    rows = np.concatenate([scan.rows for scan in scans])
    _refuse_duplicates(rows["key"], scans)
    names = _class_names(directory)
    if names and rows["label"].max() >= len(names):
        raise BadShard(
            f"{split}: a label is {rows['label'].max()}, but classes.txt names {len(names)} classes, from 0 on"
        )
    smallest = [min(scan.smallest[i] for scan in scans) for i in (0, 1)]
    largest = [max(scan.largest[i] for scan in scans) for i in (0, 1)]
    table, buffer = _paths(directory, name, split), io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    document = {
        "__kind__": _KIND,
        "wids_version": 1,
        "name": name,
        "split": split,
        "shardlist": [
            {"url": s.name, "nsamples": len(s.rows), "filesize": s.filesize, "sha256": s.sha256} for s in scans
        ],
        "images": len(rows),
        "highest_label": int(rows["label"].max()),
        "class_names": names,
        "smallest_image": smallest,
        "largest_image": largest,
        "ignored": {word: sum(s.ignored.get(word, 0) for s in scans) for s in scans for word in s.ignored},
        "fingerprint": _fingerprint(rows, [s.sha256 for s in scans]),
    }
    write_atomically(table[1], buffer.getvalue())
    write_atomically(table[0], json.dumps(document, indent=1) + "\n")


def _refuse_duplicates(keys: np.ndarray, scans: list[ShardScan]) -> None:
    """Within a shard the scan has compared the keys themselves; across shards their 64-bit hashes tell."""
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(twice):
        ends = np.cumsum([len(scan.rows) for scan in scans])
        shards = [scans[int(np.searchsorted(ends, order[twice[0] + i], side="right"))].name for i in (0, 1)]
        raise BadShard(
            f"{len(twice)} keys occur twice, the first in {shards[0]} and {shards[1]}; each sample needs its own"
        )


def _fingerprint(rows: np.ndarray, checksums: list[str]) -> str:
    whole = hashlib.sha256("\n".join(checksums).encode())
    for column in ("key", "label"):
        whole.update(np.ascontiguousarray(rows[column]).tobytes())
    return whole.hexdigest()


def _class_names(directory: Path) -> list[str] | None:
    path = directory / "classes.txt"
    return path.read_text("utf-8").splitlines() if path.is_file() else None


def _paths(directory: Path, name: str, split: str) -> tuple[Path, Path]:
    return directory / f"{name}-{split}.index.json", directory / f"{name}-{split}.index.npy"


def open_shards(directory: str | os.PathLike[str], split: str = "train") -> ShardIndex:
    """Opens one split; where there is no index yet, it is made now.

    Raises: ValueError when the directory, the split, a shard or the index is not as it should be, with what to do.
    """
    directory = Path(directory)
    name, splits = find_shards(directory)
    _known(split, splits, directory)
    if missing := [s for s in splits if not _paths(directory, name, s)[0].is_file()]:
        with alone(directory / ".index.lock"):
            for word in missing:
                if not _paths(directory, name, word)[0].is_file():
                    index_shards(directory, word)
    documents = {word: _document(directory, name, word) for word in splits}
    return _opened(directory, name, split, documents, splits[split])


def _document(directory: Path, name: str, split: str) -> dict[str, Any]:
    path = _paths(directory, name, split)[0]
    try:
        document = json.loads(path.read_text())
        if document["__kind__"] != _KIND or not isinstance(document["images"], int):
            raise ValueError("another kind of file")
        return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadShard(f"{path} is no index ({error}); {_again(directory)}") from error


def _again(directory: Path) -> str:
    return f"make it again with `vitexp shards index {directory}`"


def _opened(
    directory: Path, name: str, split: str, documents: dict[str, dict[str, Any]], tars: list[Path]
) -> ShardIndex:
    document = documents[split]
    path = _paths(directory, name, split)[1]
    try:
        shards = tuple(Shard(s["url"], s["nsamples"], s["filesize"], s["sha256"]) for s in document["shardlist"])
        smallest, largest = tuple(document["smallest_image"]), tuple(document["largest_image"])
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadShard(f"the index of {directory} is damaged ({error}); {_again(directory)}") from error
    if table.dtype != ROW or table.shape != (document["images"],) or len(table) != sum(s.images for s in shards):
        raise BadShard(f"{path} does not belong to its index; {_again(directory)}")
    _compare(shards, tars, directory)
    return ShardIndex(
        directory=directory,
        name=name,
        split=split,
        splits=tuple(documents),
        class_names=_all_class_names(documents),
        image_size=smallest if smallest == largest else None,
        fingerprint=document["fingerprint"],
        shards=shards,
        table=table,
    )


def _all_class_names(documents: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    names = next((d["class_names"] for d in documents.values() if d.get("class_names")), None)
    return tuple(names or (str(i) for i in range(1 + max(d["highest_label"] for d in documents.values()))))


def _compare(shards: tuple[Shard, ...], tars: list[Path], directory: Path) -> None:
    """The shards must still be those that were indexed."""
    indexed, present = {s.name: s.filesize for s in shards}, {tar.name: tar.stat().st_size for tar in tars}
    for word in sorted(indexed.keys() | present.keys()):
        if indexed.get(word) != present.get(word):
            was, now = (f"{sizes[word]} bytes" if word in sizes else "absent" for sizes in (indexed, present))
            raise BadShard(f"{directory / word} was {was} when it was indexed and is {now}; {_again(directory)}")
