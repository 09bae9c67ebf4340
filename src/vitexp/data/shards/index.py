"""The index of a shard set: every sample's key, label and place, so that any can be read without looking for it.

Beside the shards of a split lie `<name>-<split>.index.json`, a shard list in the public `wids-shard-index-v1` shape,
and `<name>-<split>.index.npy`, a table of 24 bytes a sample that is memory-mapped, never loaded: 300 million samples
take 7.2 GB of disk, and of memory only the pages in use.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitexp.data.shards.index_write import INDEX_KIND, content_fingerprint, index_shards
from vitexp.data.shards.layout import FEW_CLASSES, ShardSet, alone, find_shards
from vitexp.data.shards.scan import ROW
from vitexp.data.shards.tar import BadShard

__all__ = ["Shard", "ShardIndex", "index_shards", "open_shards", "open_split", "read_document"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHECKED_IMAGES = 1 << 20  # up to here keys and labels are compared with their checksum whenever they are opened
_FIELDS: dict[str, Any] = {
    **{"images": int, "highest_label": int, "fingerprint": str, "table_sha256": str, "kinds": dict, "shardlist": list},
    **{"smallest_image": list, "largest_image": list, "class_names": list | None},
}
_SHARD_NAME = re.compile(r"(?!.*(^|/)\.\.?/)[^/\\\0][^\\\0]*\.tar", re.IGNORECASE)  # never out of the directory
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
            document["__kind__"] == INDEX_KIND
            and all(isinstance(document[field], kind) for field, kind in _FIELDS.items())
            and all(isinstance(shard[field], kind) for shard in shards for field, kind in _SHARD_FIELDS.items())
            and document["images"] == sum(shard["nsamples"] for shard in shards) > 0
            and all(shard["nsamples"] > 0 and _SHARD_NAME.fullmatch(shard["url"]) for shard in shards)
            and all(_SHA256.fullmatch(one["sha256"]) for one in shards)
            and _SHA256.fullmatch(document["table_sha256"]) is not None
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
    if shard_set.url:
        return shards
    indexed = {shard.name: shard.filesize for shard in shards}
    present = {shard_set.called(tar): tar.stat().st_size for tar in shard_set.splits[split]}
    for name in sorted(indexed.keys() | present.keys()):
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
