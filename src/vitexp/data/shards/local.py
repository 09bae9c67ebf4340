"""The bytes of any samples of local shards, by reads at known places; neighbours come by one read."""

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from vitexp.data.read.decode import EXTENSIONS, File
from vitexp.data.shards.index import ShardIndex
from vitexp.data.shards.scan import MAX_IMAGE_BYTES, key_hash, split_name
from vitexp.data.shards.tar import BLOCK, BadShard, header_fields

_WHOLE_NAME = 98  # a longer name, or one beyond ASCII, may stand in an extended header, and here cut or with "?"
_OPEN_FILES = 256
_GAP_BYTES = 1 << 14  # so much that is not wanted costs less to read than another call


class Where(NamedTuple):
    """Shard and key of an image, made into text only for an error."""

    shard: str
    header: memoryview

    def __str__(self) -> str:
        return f"{self.shard}: {split_name(header_fields(bytes(self.header))[0])[0]}"


class Handle:
    """An open shard, how it was then, and which of its samples were found to be those of the index since. Closed when
    it is no longer used.
    """

    def __init__(self, path: str, samples: int) -> None:
        self.number = os.open(path, os.O_RDONLY)
        self.stamp = self.now()
        self.known = np.zeros(samples, bool)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def fill(self, part: memoryview, begin: int) -> bool:
        """Reads into `part`; False when the shard ends before, or is no longer what it was."""
        while len(part):
            got = os.preadv(self.number, [part], begin)
            if not got:
                return False
            begin, part = begin + got, part[got:]
        return self.now() == self.stamp

    def now(self) -> tuple[int, int]:
        """Size and time of the last change."""
        state = os.fstat(self.number)
        return state.st_size, state.st_mtime_ns


class LocalFiles:
    """Reads samples with the header before them, which shows whether the shard still is what was indexed.

    Each process opens its own files, and keeps the last `most` of them open: a shard that is replaced under its name is
    then not noticed and does no harm, one that is written over is noticed. May be used from several threads.
    """

    def __init__(self, index: ShardIndex, most: int = _OPEN_FILES) -> None:
        self.index, self._most = index, most
        self._open: OrderedDict[int, Handle] = OrderedDict()
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._sizes = np.array([shard.filesize for shard in index.shards])
        self._spaces = threading.local()

    def __reduce__(self) -> Any:
        return type(self), (self.index, self._most)

    def read(self, samples: np.ndarray) -> list[File]:
        """The files of samples, in their order.

        Raises: BadShard when a shard is no longer what it was when it was indexed.
        """
        rows, shards = self.index.table[samples], self.index.shard_of(samples)
        begins = (rows["block"].astype(np.int64) - 1) * BLOCK
        ends = begins + BLOCK + rows["length"]
        wrong = (begins < 0) | (rows["length"] > MAX_IMAGE_BYTES) | (rows["kind"] >= len(EXTENSIONS))
        for shard in shards[wrong | (ends > self._sizes[shards])]:
            raise self._changed(shard)
        view, places = self._gathered(samples, shards, begins, ends)
        columns = (column.tolist() for column in (places, rows["length"], rows["kind"], shards))
        return [
            File(
                view[place + BLOCK : place + BLOCK + length],
                EXTENSIONS[kind],
                Where(self.index.shards[shard].name, view[place : place + BLOCK]),
            )
            for place, length, kind, shard in zip(*columns, strict=True)
        ]

    def _gathered(
        self, samples: np.ndarray, shards: np.ndarray, begins: np.ndarray, ends: np.ndarray
    ) -> tuple[memoryview, np.ndarray]:
        """The bytes between each begin and end, shard by shard, and where in them each begins."""
        order = np.lexsort((begins, shards))
        shards, begins, ends = shards[order], begins[order], ends[order]
        apart = np.ones(len(order), bool)
        apart[1:] = (shards[1:] != shards[:-1]) | (begins[1:] > ends[:-1] + _GAP_BYTES)
        firsts = np.flatnonzero(apart)
        lengths = np.maximum.reduceat(ends, firsts) - begins[firsts] if len(firsts) else firsts
        offsets = np.cumsum(lengths) - lengths
        view, group = self._space(int(lengths.sum())), np.cumsum(apart) - 1
        places = offsets[group] + begins - begins[firsts[group]]
        for shard in np.unique(shards).tolist():
            mine = slice(*np.searchsorted(shards, [shard, shard + 1]).tolist())
            with self._named(shard):
                handle = self._handle(shard)
                for read in range(group[mine][0], group[mine][-1] + 1):
                    part = view[offsets[read] : offsets[read] + lengths[read]]
                    if not handle.fill(part, int(begins[firsts[read]])):
                        raise self._changed(shard)
            self._check(handle, shard, samples[order[mine]], view, places[mine])
        back = np.empty_like(places)
        back[order] = places
        return view, back

    @contextmanager
    def _named(self, shard: int) -> Iterator[None]:
        """Names the shard that could not be read where the disk or the network fails."""
        try:
            yield
        except OSError as error:
            raise BadShard(
                f"{self.index.directory / self.index.shards[shard].name} cannot be read ({error.strerror or error}); "
                "see to the disk or network that holds it, then run the command again"
            ) from error

    def _space(self, length: int) -> memoryview:
        """Memory to read into: that of the last time where no part of it is in use any more, which spares the system
        from handing out fresh pages.
        """
        space: np.ndarray | None = getattr(self._spaces, "last", None)
        if space is None or len(space) < length or sys.getrefcount(space) > 3:  # here, in the call, in _spaces
            space = self._spaces.last = np.empty(length, np.uint8)
        return memoryview(space.data)[:length]

    def _check(self, handle: Handle, shard: int, samples: np.ndarray, view: memoryview, places: np.ndarray) -> None:
        """Compares the headers with the index, once for each sample of an open shard: it does not change unnoticed."""
        inside = samples - self.index.starts[shard]
        for at in np.flatnonzero(~handle.known[inside]).tolist():
            header, row = bytes(view[places[at] : places[at] + BLOCK]), self.index.table[samples[at]]
            name, size = header_fields(header)
            whole = len(name) <= _WHOLE_NAME and name.isascii() and "?" not in name
            if size != row["length"] or (whole and key_hash(split_name(name)[0]) != row["key"]):
                raise self._changed(shard)
        handle.known[inside] = True

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Announces the shards needed now, and after them, for prefetching; local ones need nothing."""

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
        handle = Handle(str(self.index.directory / self.index.shards[shard].name), self.index.shards[shard].images)
        if handle.stamp[0] != self.index.shards[shard].filesize:
            raise self._changed(shard)
        return handle

    def _changed(self, shard: int) -> BadShard:
        path = self.index.directory / self.index.shards[shard].name
        return BadShard(
            f"{path} has changed since it was indexed; leave shards alone while they are read, and then "
            f"make the index again with `vitexp shards index {self.index.directory}`"
        )
