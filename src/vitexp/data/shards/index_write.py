"""Makes the index of a shard set, in memory that does not grow with the set."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vitexp.data.read.decode import EXTENSIONS
from vitexp.data.shards.layout import ShardSet, find_shards
from vitexp.data.shards.scan import ROW, ShardScan, scan_shard
from vitexp.data.shards.tar import BadShard
from vitexp.record import write_atomically

INDEX_KIND = "wids-shard-index-v1"
_CHUNK_ROWS = 1 << 20
_SORTED_KEYS = 1 << 24  # as many as are compared at a time when duplicates are looked for: 128 MB


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
    for name in [shard_set.known(split)] if split else shard_set.splits:
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            shards = shard_set.splits[name]
            scans = pool.map(scan_shard, shards, map(shard_set.called, shards))
            try:
                write_index(shard_set, name, _reported(scans, report))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _reported(scans: Iterable[ShardScan], report: Callable[[int], object]) -> Iterator[ShardScan]:
    for scan in scans:
        report(1)
        yield scan


def write_index(shard_set: ShardSet, split: str, scans: Iterable[ShardScan]) -> None:
    """Writes the index of one split from what is known of its shards, in their order."""
    path = shard_set.table(split, "")
    unfinished = path.with_suffix(".tmp")
    try:
        summary = _write_rows(unfinished, scans)
        rows = np.load(unfinished, mmap_mode="r", allow_pickle=False)
        _refuse_duplicates(rows["key"], summary["shardlist"])
        names = shard_set.class_names()
        if names and summary["highest_label"] >= len(names):
            raise BadShard(
                f"{shard_set.directory}: {summary['highest_at']} of {split} has the label {summary['highest_label']}, "
                f"but the file of class names has {len(names)}, from 0 on; correct the one or the other"
            )
        document = {"__kind__": INDEX_KIND, "wids_version": 1, "name": shard_set.name, "split": split, **summary}
        document |= {"class_names": names, "fingerprint": content_fingerprint(rows, summary["shardlist"])}
        with open(unfinished, "rb") as table:
            document["table_sha256"] = hashlib.file_digest(table, "sha256").hexdigest()
        os.replace(unfinished, path)
        write_atomically(shard_set.document(split), json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"the index of {shard_set.directory} cannot be written ({error}); make it where you may write, "
            "beside a copy of the shards or links to them"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _write_rows(path: Path, scans: Iterable[ShardScan]) -> dict[str, Any]:
    """Writes the rows as they come, their number in the header last; returns the entries of the shard list."""
    shards: list[dict[str, Any]] = []
    kinds = np.zeros(len(EXTENSIONS), np.int64)
    ignored: dict[str, int] = {}
    highest, highest_at, smallest, largest = -1, "", (1 << 30, 1 << 30), (0, 0)
    with open(path, "wb") as file:
        start = _write_header(file, 0)
        for scan in scans:
            shards.append(
                {"url": scan.name, "nsamples": len(scan.rows), "filesize": scan.filesize, "sha256": scan.sha256}
            )
            file.write(scan.rows.tobytes())
            kinds += np.bincount(scan.rows["kind"], minlength=len(kinds))
            if scan.highest > highest:
                highest, highest_at = scan.highest, f"{scan.name}: sample {scan.highest_key!r}"
            smallest = min(smallest[0], scan.smallest[0]), min(smallest[1], scan.smallest[1])
            largest = max(largest[0], scan.largest[0]), max(largest[1], scan.largest[1])
            for suffix, count in scan.ignored.items():
                ignored[suffix] = ignored.get(suffix, 0) + count
        images = sum(shard["nsamples"] for shard in shards)
        file.seek(0)
        assert _write_header(file, images) == start, "the header leaves room for the number of rows"
        file.flush()
        os.fsync(file.fileno())
    return {
        "shardlist": shards,
        "images": images,
        "highest_label": highest,
        "highest_at": highest_at,
        "smallest_image": smallest,
        "largest_image": largest,
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
            ends = np.cumsum([shard["nsamples"] for shard in shards])
            rows = np.concatenate(
                [np.flatnonzero(c == twice[0]) + i * _CHUNK_ROWS for i, c in enumerate(_chunks(keys))]
            )
            names = [shards[int(np.searchsorted(ends, row, side="right"))]["url"] for row in rows[:2]]
            raise BadShard(
                f"{names[0]} and {names[1]} share a key ({len(twice)} such keys were found); "
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
