"""The bytes of any sample of local shards, by one read at a known place."""

import os
from typing import Any

import numpy as np

from vitexp.data.decode import EXTENSIONS
from vitexp.data.index import ShardIndex
from vitexp.data.photo import File
from vitexp.data.scan import MAX_IMAGE_BYTES, key_hash, split_name
from vitexp.data.tar import BLOCK, BadShard, header_fields

_WHOLE_NAME = 98  # a longer name may be cut here, and stand in an extended header


class LocalFiles:
    """Reads samples with the header before them, which tells whether the shard still is what was indexed.

    Each process opens its own files, and keeps them open: a shard that is replaced under its name is not noticed and
    does no harm, one that is written over is noticed.
    """

    def __init__(self, index: ShardIndex) -> None:
        self.index = index
        self._open: dict[int, tuple[int, tuple[int, int]]] = {}

    def __reduce__(self) -> Any:
        return LocalFiles, (self.index,)

    def __del__(self) -> None:
        for handle, _ in self._open.values():
            os.close(handle)

    def read(self, samples: np.ndarray) -> list[File]:
        """The files of samples, in their order.

        Raises: BadShard when a shard is no longer what it was when it was indexed.
        """
        rows, shards = self.index.table[samples], self.index.shard_of(samples)
        columns = (rows[word].tolist() for word in ("block", "length", "kind", "key"))
        return [self._one(*place) for place in zip(shards.tolist(), *columns, strict=True)]

    def _one(self, shard: int, block: int, length: int, kind: int, expected: int) -> File:
        handle, stamp = self._file(shard)
        if block < 1 or length > MAX_IMAGE_BYTES or kind >= len(EXTENSIONS):
            raise self._changed(shard)
        data = os.pread(handle, length + BLOCK, (block - 1) * BLOCK)
        name, size = header_fields(data[:BLOCK])
        key = split_name(name)[0]
        known = len(name) > _WHOLE_NAME or not name.isascii() or key_hash(key) == expected
        if len(data) != length + BLOCK or size != length or not known or _stamp(handle) != stamp:
            raise self._changed(shard)
        return File(data[BLOCK:], EXTENSIONS[kind], f"{self.index.shards[shard].name}: {key}")

    def _file(self, shard: int) -> tuple[int, tuple[int, int]]:
        if shard not in self._open:
            handle = os.open(self.index.directory / self.index.shards[shard].name, os.O_RDONLY)
            self._open[shard] = handle, _stamp(handle)
        found = self._open[shard]
        if found[1][0] != self.index.shards[shard].filesize:
            raise self._changed(shard)
        return found

    def _changed(self, shard: int) -> BadShard:
        path = self.index.directory / self.index.shards[shard].name
        return BadShard(
            f"{path} has changed since it was indexed; leave shards alone while they are read, and then "
            f"make the index again with `vitexp shards index {self.index.directory}`"
        )


def _stamp(handle: int) -> tuple[int, int]:
    state = os.fstat(handle)
    return state.st_size, state.st_mtime_ns
