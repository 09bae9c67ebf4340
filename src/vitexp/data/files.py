"""The bytes of any sample of local shards, by one read at a known place."""

import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from vitexp.data.decode import EXTENSIONS
from vitexp.data.index import ShardIndex
from vitexp.data.photo import File
from vitexp.data.scan import MAX_IMAGE_BYTES, key_hash, split_name
from vitexp.data.tar import BLOCK, BadShard, header_fields

_WHOLE_NAME = 98  # a longer name, or one beyond ASCII, may stand in an extended header, and here cut or with "?"
_OPEN_FILES = 256


class Handle:
    """An open shard, and how it was then. Closed when nobody uses it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)
        self.stamp = self.now()

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def now(self) -> tuple[int, int]:
        """Size and time of the last change."""
        state = os.fstat(self.number)
        return state.st_size, state.st_mtime_ns


class LocalFiles:
    """Reads samples with the header before them, which tells whether the shard still is what was indexed.

    Each process opens its own files, and keeps the last `most` of them open: a shard that is replaced under its name is
    then not noticed and does no harm, one that is written over is noticed. May be used from several threads.
    """

    def __init__(self, index: ShardIndex, most: int = _OPEN_FILES) -> None:
        self.index, self._most = index, most
        self._open: OrderedDict[int, Handle] = OrderedDict()
        self._lock, self._owner = threading.Lock(), os.getpid()

    def __reduce__(self) -> Any:
        return type(self), (self.index, self._most)

    def read(self, samples: np.ndarray) -> list[File]:
        """The files of samples, in their order.

        Raises: BadShard when a shard is no longer what it was when it was indexed.
        """
        rows, shards = self.index.table[samples], self.index.shard_of(samples)
        columns = (rows[word].tolist() for word in ("block", "length", "kind", "key"))
        return [self._one(*place) for place in zip(shards.tolist(), *columns, strict=True)]

    def _one(self, shard: int, block: int, length: int, kind: int, expected: int) -> File:
        handle = self._handle(shard)
        if block < 1 or length > MAX_IMAGE_BYTES or kind >= len(EXTENSIONS):
            raise self._changed(shard)
        data = os.pread(handle.number, length + BLOCK, (block - 1) * BLOCK)
        name, size = header_fields(data[:BLOCK])
        key = split_name(name)[0]
        whole = len(name) <= _WHOLE_NAME and name.isascii() and "?" not in name
        other = whole and key_hash(key) != expected
        if len(data) != length + BLOCK or size != length or other or handle.now() != handle.stamp:
            raise self._changed(shard)
        return File(data[BLOCK:], EXTENSIONS[kind], f"{self.index.shards[shard].name}: {key}")

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Hears which shards are needed now, and which after them; local ones need nothing."""

    def _handle(self, shard: int) -> Handle:
        if os.getpid() != self._owner:  # after a fork a lock may be held by a thread that is not here
            self._owner, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            handle = self._open.get(shard)
            if handle is not None:
                self._open.move_to_end(shard)
                return handle
        handle = self._opened(shard)
        with self._lock:
            self._open[shard] = handle
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return handle

    def _opened(self, shard: int) -> Handle:
        handle = Handle(str(self.index.directory / self.index.shards[shard].name))
        if handle.stamp[0] != self.index.shards[shard].filesize:
            raise self._changed(shard)
        return handle

    def _changed(self, shard: int) -> BadShard:
        path = self.index.directory / self.index.shards[shard].name
        return BadShard(
            f"{path} has changed since it was indexed; leave shards alone while they are read, and then "
            f"make the index again with `vitexp shards index {self.index.directory}`"
        )
