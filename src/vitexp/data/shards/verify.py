"""Reads a whole shard set again and lists all that is wrong with it."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
import numpy as np
from vitexp.data.read.decode import decode_image
from vitexp.data.read.local import LocalFiles
from vitexp.data.shards.index import ShardIndex, open_shards
from vitexp.data.info import notes
from vitexp.data.shards.layout import find_shards
from vitexp.data.shards.scan import scan_shard


_PART = 256  # images a task


@dataclass
class Findings:
    """What `verify` found: problems, each naming its shard, and notes that are none."""

    images: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    directory: str | os.PathLike[str],
    decode: bool = True,
    workers: int = 0,
    report: Callable[[int], None] | None = None,
) -> Findings:
    """Compares every shard with its index, decodes every image, and looks for images that lie in two splits.

    Raises: ValueError when there is no set here, or an index cannot be read.
    """
    found, contents = Findings(), {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for split in find_shards(directory).splits:
            index = open_shards(directory, split)
            found.images += len(index)
            for problem in pool.map(lambda shard, index=index: _check_shard(index, shard), range(len(index.shards))):
                found.problems += problem
            if decode and not found.problems:
                contents[split] = _check_images(index, pool, found.problems, report or (lambda images: None))
    found.notes += [*notes(directory), *_in_two_splits(contents)]
    return found


def _check_shard(index: ShardIndex, number: int) -> list[str]:
    """A scan of the shard as if it were new, compared with what the index keeps of it."""
    shard = index.shards[number]
    try:
        scan = scan_shard(Path(index.directory) / shard.name, shard.name)
    except (ValueError, OSError) as error:
        return [str(error)]
    if scan.sha256 != shard.sha256:
        return [f"{shard.name}: sha256 is {scan.sha256[:16]}..., the index has {shard.sha256[:16]}...; it has changed"]
    if not np.array_equal(scan.rows, index.table[index.starts[number] : index.starts[number + 1]]):
        return [f"{shard.name}: the index does not describe this shard; make it again with `vitexp shards index`"]
    return []


def _check_images(
    index: ShardIndex, pool: ThreadPoolExecutor, problems: list[str], report: Callable[[int], None]
) -> np.ndarray:
    """Decodes all images of a split; returns a hash of each one's bytes."""
    files = LocalFiles(index)

    def check(start: int) -> tuple[list[int], list[str]]:
        hashes, bad = [], []
        for sample in range(start, min(start + _PART, len(index))):
            file = files.read(np.array([sample]))[0]
            hashes.append(int.from_bytes(blake2b(file.data, digest_size=8).digest()))
            try:
                decode_image(*file)
            except ValueError as error:
                bad.append(str(error))
        return hashes, bad

    hashes: list[int] = []
    for part, bad in pool.map(check, range(0, len(index), _PART)):
        hashes += part
        problems += bad
        report(len(part))
    return np.array(hashes, np.uint64)


def _in_two_splits(contents: dict[str, np.ndarray]) -> list[str]:
    """The same bytes in two splits: a test that was trained on."""
    found, splits = [], list(contents)
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            shared = len(np.intersect1d(contents[one], contents[other]))
            if shared:
                found.append(f"{shared} images lie in {one} and in {other}, byte for byte")
    return found

