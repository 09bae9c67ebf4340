"""The index of a shard set: every sample's key, label and place, so that any can be read without looking for it.

Beside the shards of a split lie `<name>-<split>.index.json`, a shard list in the public `wids-shard-index-v1` shape,
and `<name>-<split>.index.npy`, a table of 24 bytes a sample that is memory-mapped, never loaded: 300 million samples
take 7.2 GB of disk, and of memory only the pages in use. It is made in memory that does not grow with the set.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vitexp.data.read.decode import EXTENSIONS
from vitexp.data.shards.layout import FEW_CLASSES, BadShard, ShardSet, alone, find_shards
from vitexp.data.shards.scan import ROW, ShardScan, scan_shard
from vitexp.record import whole_file, write_atomically

_KIND = "wids-shard-index-v1"
_CHUNK_ROWS = 1 << 20
_SORTED_KEYS = 1 << 24  # as many as are compared at a time when duplicates are looked for: 128 MB
_CHECKED_IMAGES = 1 << 20  # up to here keys and labels are compared with their checksum whenever they are opened
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD_NAME = re.compile(r"(?!.*(^|/)\.\.?/)[^/\\\0][^\\\0]*\.tar", re.IGNORECASE)  # never out of the directory
_FIELDS: dict[str, Any] = {
    **{"images": int, "highest_label": int, "fingerprint": str, "table_sha256": str, "kinds": dict, "shardlist": list},
    **{"smallest_image": list, "largest_image": list, "class_names": list | None},
}
_SHARD_FIELDS = {"url": str, "nsamples": int, "filesize": int, "sha256": str}


class Shard(NamedTuple):
    """One tar of the set."""

    name: str
    images: int
    filesize: int
    sha256: str


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """One split of a shard set, opened. Samples are numbered from 0 in the order of shards and of members in them."""

    shard_set: ShardSet
    split: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int] | None
    """Height and width, where all images have the same."""
    kinds: frozenset[str]
    """What the images are, by their content: png, jpg, webp."""
    fingerprint: str
    shards: tuple[Shard, ...]
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> Any:
        return open_split, (self.shard_set, self.split)

    @property
    def directory(self) -> Path:
        """Where the index lies, and the shards unless they are at a URL."""
        return self.shard_set.directory

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.shard_set.name

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits of the set."""
        return tuple(self.shard_set.splits)

    @property
    def classes(self) -> int:
        """How many classes the set has, over all its splits."""
        return len(self.class_names)

    @cached_property
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


def open_shards(directory: str | os.PathLike[str], split: str = "train") -> ShardIndex:
    """Opens one split; where there is no index yet, it is made now.

    Raises: ValueError when the directory, the split, a shard or the index is not as it should be, with what to do.
    """
    shard_set = find_shards(directory)
    shard_set.known(split)
    if shard_set.unindexed():
        with alone(shard_set.directory / ".index.lock"):
            for missing in shard_set.unindexed():
                index_shards(directory, missing)
    return open_split(shard_set, split)


def open_split(shard_set: ShardSet, split: str) -> ShardIndex:
    """Opens one split of a set that has its index."""
    documents = {name: read_document(shard_set, name) for name in shard_set.splits}
    _refuse_same_shards(documents)
    document, table = documents[split], _table(shard_set, split, documents[split])
    smallest, largest = document["smallest_image"], document["largest_image"]
    return ShardIndex(
        shard_set=shard_set,
        split=split,
        class_names=_class_names(shard_set, documents),
        image_size=(smallest[0], smallest[1]) if smallest == largest else None,
        kinds=frozenset(document["kinds"]),
        fingerprint=document["fingerprint"],
        shards=_shards(shard_set, split, document),
        table=table,
    )


def read_document(shard_set: ShardSet, split: str) -> dict[str, Any]:
    """The shard list, with everything in it that is needed later."""
    path = shard_set.document(split)
    try:
        document = json.loads(path.read_text("utf-8"))
        shards = document["shardlist"]
        whole = (
            document["__kind__"] == _KIND
            and all(isinstance(document[field], kind) for field, kind in _FIELDS.items())
            and all(isinstance(shard[field], kind) for shard in shards for field, kind in _SHARD_FIELDS.items())
            and document["images"] == sum(shard["nsamples"] for shard in shards) > 0
            and all(shard["nsamples"] > 0 and _SHARD_NAME.fullmatch(shard["url"]) for shard in shards)
            and all(_SHA256.fullmatch(one["sha256"]) for one in shards)
            and _SHA256.fullmatch(document["table_sha256"])
            and all(len(document[field]) == 2 for field in ("smallest_image", "largest_image"))
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise shard_set.bad(f"{path} is no index ({type(error).__name__}: {error})") from error
    if not whole:
        raise shard_set.bad(f"{path} is no whole index")
    return document


def _table(shard_set: ShardSet, split: str, document: dict[str, Any]) -> np.ndarray:
    path, images = shard_set.table(split, document["table_sha256"]), document["images"]
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy tokenizes the header as Python, which may raise anything on hostile bytes
        raise shard_set.bad(f"{path} cannot be read ({error})") from error
    if not isinstance(table, np.ndarray) or table.dtype != ROW or table.shape != (images,):
        raise shard_set.bad(f"{path} does not belong to {shard_set.document(split).name}")
    if images <= _CHECKED_IMAGES and content_fingerprint(table, document["shardlist"]) != document["fingerprint"]:
        raise shard_set.bad(f"{path} is damaged: its checksum is another one")
    if images <= _CHECKED_IMAGES and not 0 <= table["label"].min() <= table["label"].max() <= document["highest_label"]:
        raise shard_set.bad(f"{path} has labels beyond those of {shard_set.document(split).name}")
    return np.asarray(table)  # a plain view of the mapped pages, which is quicker to index


def _shards(shard_set: ShardSet, split: str, document: dict[str, Any]) -> tuple[Shard, ...]:
    """The shards as they were indexed, which is as they must lie there now."""
    shards = tuple(Shard(s["url"], s["nsamples"], s["filesize"], s["sha256"]) for s in document["shardlist"])
    indexed = {shard.name: shard.filesize for shard in shards}
    present = {name: (shard_set.directory / name).stat().st_size for name in shard_set.splits[split]}
    for name in sorted(indexed.keys() | present.keys()) if not shard_set.url else []:
        if indexed.get(name) != present.get(name):
            was, now = (f"{sizes[name]} bytes" if name in sizes else "absent" for sizes in (indexed, present))
            raise shard_set.bad(f"{shard_set.directory / name} was {was} when it was indexed and is {now}")
    return shards


def _class_names(shard_set: ShardSet, documents: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The names of the classes, or their numbers. Raises: BadShard for labels that do not fit."""
    named = {tuple(document["class_names"]) for document in documents.values() if document["class_names"]}
    if not shard_set.url and (now := shard_set.class_names()):
        named.add(tuple(now))
    highest = max(documents.values(), key=lambda document: document["highest_label"])
    classes, images = 1 + highest["highest_label"], sum(document["images"] for document in documents.values())
    if len(named) > 1 or any(len(names) < classes for names in named):
        raise shard_set.bad(f"{shard_set.directory}: the names of the classes have changed since it was indexed")
    if not named and classes > max(images, FEW_CLASSES):
        raise BadShard(
            f"{highest.get('highest_at') or shard_set.directory} has the label {classes - 1:,}, of {images:,} images: "
            "labels are the numbers of classes, from 0 on; correct it, or name that many classes in classes.txt"
        )
    return named.pop() if named else tuple(str(i) for i in range(classes))


def _refuse_same_shards(documents: dict[str, dict[str, Any]]) -> None:
    """Raises: BadShard for a shard whose very bytes lie in two splits."""
    found: dict[str, str] = {}
    for split, document in documents.items():
        for shard in document["shardlist"]:
            name = f"{shard['url']} ({split})"
            if (other := found.setdefault(shard["sha256"], name)) != name:
                raise BadShard(f"{other} and {name} have the same content; remove one of them")


def index_shards(
    directory: str | os.PathLike[str],
    split: str | None = None,
    workers: int = 0,
    report: Callable[[int], object] = lambda shards: None,
) -> None:
    """Reads the shards of every split (or of one) and writes their index, whole or not at all.

    `workers` is the number of reading threads, 0 for one a processor; `report` is called with 1 after every shard.
    Raises: BadShard or BadImage naming the shard and the sample.
    """
    shard_set = find_shards(directory)

    def scan(name: str) -> ShardScan:
        found = scan_shard(shard_set.directory / name, name)
        report(1)
        return found

    for one in [shard_set.known(split)] if split else shard_set.splits:
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            try:
                write_index(shard_set, one, pool.map(scan, shard_set.splits[one]))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def write_index(shard_set: ShardSet, split: str, scans: Iterable[ShardScan]) -> None:
    """Writes the index of one split from what is known of its shards, in their order."""
    path, names = shard_set.table(split, ""), shard_set.class_names()
    unfinished = path.with_suffix(".tmp")
    try:
        with whole_file(path, unfinished) as file:
            found = _write_rows(file, scans)
            rows = np.load(unfinished, mmap_mode="r", allow_pickle=False)
            _refuse_duplicates(rows["key"], found["shardlist"])
            if names and found["highest_label"] >= len(names):
                raise BadShard(
                    f"{shard_set.directory}: {found['highest_at']} of {split} has the label {found['highest_label']}, "
                    f"but the file of class names has {len(names)}, from 0 on; correct the one or the other"
                )
            document = {"__kind__": _KIND, "wids_version": 1, "name": shard_set.name, "split": split, **found}
            document |= {"class_names": names, "fingerprint": content_fingerprint(rows, found["shardlist"])}
            with open(unfinished, "rb") as table:
                document["table_sha256"] = hashlib.file_digest(table, "sha256").hexdigest()
        write_atomically(shard_set.document(split), json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"the index of {shard_set.directory} cannot be written ({error}); make it where you may write, "
            "beside a copy of the shards or links to them"
        ) from error


def _write_rows(file: BinaryIO, scans: Iterable[ShardScan]) -> dict[str, Any]:
    """Writes the rows as they come, their number in the header last; returns the entries of the shard list."""
    shards: list[dict[str, Any]] = []
    sizes: list[list[int]] = []
    kinds, ignored, highest = np.zeros(len(EXTENSIONS), np.int64), Counter[str](), (-1, "")
    start = _write_header(file, 0)
    for scan in scans:
        file.write(scan.rows.tobytes())
        shards.append({"url": scan.name, "nsamples": len(scan.rows), "filesize": scan.filesize, "sha256": scan.sha256})
        sizes += [scan.smallest, scan.largest]
        kinds += np.bincount(scan.rows["kind"], minlength=len(kinds))
        ignored.update(scan.ignored)
        if (label := int(scan.rows["label"].max())) > highest[0]:
            highest = label, f"{scan.name}: sample {scan.highest_key!r}"
    images = sum(shard["nsamples"] for shard in shards)
    file.seek(0)
    assert _write_header(file, images) == start, "the header leaves room for the number of rows"
    file.flush()
    return {
        "shardlist": shards,
        "images": images,
        "highest_label": highest[0],
        "highest_at": highest[1],
        "smallest_image": np.min(sizes, axis=0).tolist(),
        "largest_image": np.max(sizes, axis=0).tolist(),
        "kinds": {kind: int(count) for kind, count in zip(EXTENSIONS, kinds, strict=True) if count},
        "ignored": ignored,
    }


def _write_header(file: Any, images: int) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (images,)}
    np.lib.format.write_array_header_1_0(file, header)
    return int(file.tell())


def _refuse_duplicates(keys: np.ndarray, shards: list[dict[str, Any]]) -> None:
    """Within a shard the scan has compared the keys themselves; across shards their hashes tell, a part at a time,
    which their upper bits decide.
    """
    parts = -(-len(keys) // _SORTED_KEYS)
    for part in range(parts):
        of_part = [c[(c >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32) == part] for c in _chunks(keys)]
        found = np.sort(np.concatenate(of_part))
        twice = found[1:][found[1:] == found[:-1]]
        if len(twice):
            same = [np.flatnonzero(c == twice[0]) + i * _CHUNK_ROWS for i, c in enumerate(_chunks(keys))]
            ends = np.cumsum([shard["nsamples"] for shard in shards])
            one, other = (shards[at]["url"] for at in np.searchsorted(ends, np.concatenate(same)[:2], side="right"))
            raise BadShard(
                f"{one} and {other} share a key ({len(twice)} such keys were found); "
                "write the shards again with a key of its own for every sample"
            )


def content_fingerprint(rows: np.ndarray, shards: list[dict[str, Any]]) -> str:
    """A checksum of the shards' own checksums, the keys and the labels."""
    whole = hashlib.sha256("\n".join(shard["sha256"] for shard in shards).encode())
    for column in ("key", "label"):
        for chunk in _chunks(rows[column]):
            whole.update(chunk.tobytes())
    return whole.hexdigest()


def _chunks(column: np.ndarray) -> Iterator[np.ndarray]:
    """The column in pieces that are copied out of the file one at a time."""
    for start in range(0, len(column), _CHUNK_ROWS):
        yield np.ascontiguousarray(column[start : start + _CHUNK_ROWS])
