"""The bytes of any samples of a shard set, by reads at known places.

Shards at a URL are fetched whole, ahead of their use, checked, and then read as local ones. `data.shards` is the URL of
the set with its name, as in `https://host/sets/cifar10` for `https://host/sets/cifar10-train-000000.tar`; the index
must lie beside the shards. All processes of a machine share what has been fetched.
"""

import contextlib
import hashlib
import os
import sys
import tarfile
import threading
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitexp.data.read.decode import EXTENSIONS, File
from vitexp.data.read.fetch import Missing, check_url, fetch
from vitexp.data.shards.index import Shard, ShardIndex, open_split, read_document
from vitexp.data.shards.layout import SPLITS, WAIT_SECONDS, BadShard, ShardSet, alone
from vitexp.data.shards.scan import BLOCK, MAX_IMAGE_BYTES, key_hash, plain_members, split_name
from vitexp.record import cache_root

ROOM_BYTES = 100_000_000_000
_WHOLE_NAME = 98  # a longer name, or one beyond ASCII, may stand in an extended header, and here cut or with "?"
_OPEN_LOCAL, _OPEN_FETCHED = 256, 64  # a shard that was removed to make room takes it all the same while it is open
_FETCHES_AT_A_TIME = 4
_TRIES = 3


class Where(NamedTuple):
    """Shard and key of an image, made into text only for an error."""

    shard: str
    header: memoryview

    def __str__(self) -> str:
        name = tarfile.TarInfo.frombuf(bytes(self.header), "utf-8", "replace").name
        return f"{self.shard}: {split_name(name)[0]}"


class Handle:
    """An open shard, how it was then, and which of its samples were found to be those of the index since."""

    def __init__(self, path: Path, samples: int) -> None:
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


class ShardFiles:
    """Reads samples with the header before them, which shows whether the shard still is what was indexed.

    Each process opens its own files, and keeps the last ones open: a shard that is replaced under its name is then not
    noticed and does no harm, one that is written over is noticed. May be used from several threads.
    """

    def __init__(self, index: ShardIndex) -> None:
        self.index = index
        self._handle = lru_cache(_OPEN_FETCHED if index.shard_set.url else _OPEN_LOCAL)(partial(_opened, index))
        self._sizes = np.array([shard.filesize for shard in index.shards])
        self._spaces = threading.local()
        self._turns = threading.Semaphore(_FETCHES_AT_A_TIME)

    def __reduce__(self) -> Any:
        return ShardFiles, (self.index,)

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Announces the shards that are needed together now, and those after them: those at a URL are fetched.

        Raises: ValueError when there is no room for what is needed together.
        """
        if not self.index.shard_set.url:
            return
        room, wanted = room_bytes(), self._sizes[now].sum()
        if wanted > room:
            raise ValueError(
                f"one window of {self.index.name} takes {wanted} bytes of shards, and VITEXP_CACHE_BYTES leaves "
                f"{room}; set it higher, or copy the shards to this disk"
            )
        together = wanted + self._sizes[then].sum() <= room
        for shard in [*now.tolist(), *(then.tolist() if together else [])]:
            threading.Thread(target=self._fetch_ahead, args=(shard,), daemon=True).start()

    def _fetch_ahead(self, shard: int) -> None:
        with self._turns, contextlib.suppress(Exception):  # whoever needs it then tries again, and says what is wrong
            fetch_shard(self.index.shard_set, self.index.shards[shard])

    def read(self, samples: np.ndarray) -> list[File]:
        """The files of samples, in their order. Raises: BadShard when a shard is no longer what was indexed."""
        rows, shards = self.index.table[samples], self.index.shard_of(samples)
        begins, lengths = (rows["block"].astype(np.int64) - 1) * BLOCK, BLOCK + rows["length"].astype(np.int64)
        wrong = (begins < 0) | (rows["length"] > MAX_IMAGE_BYTES) | (rows["kind"] >= len(EXTENSIONS))
        for shard in shards[wrong | (begins + lengths > self._sizes[shards])]:
            raise _changed(self.index, shard)
        ends, view = np.cumsum(lengths).tolist(), self._space(int(lengths.sum()))
        parts = [view[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
        for at in np.lexsort((begins, shards)).tolist():  # in the order in which they lie there
            self._fill(parts[at], int(begins[at]), int(shards[at]), int(samples[at]))
        return [
            File(part[BLOCK:], EXTENSIONS[kind], Where(self.index.shards[shard].name, part[:BLOCK]))
            for part, kind, shard in zip(parts, rows["kind"].tolist(), shards.tolist(), strict=True)
        ]

    def _fill(self, part: memoryview, begin: int, shard: int, sample: int) -> None:
        """Reads a sample; compares its header with the index once: an open shard does not change unnoticed."""
        inside = sample - self.index.starts[shard]
        try:
            handle = self._handle(shard)
            whole = handle.fill(part, begin)
        except OSError as error:
            raise BadShard(
                f"{self.index.directory / self.index.shards[shard].name} cannot be read ({error.strerror or error}); "
                "see to the disk or network that holds it, then run the command again"
            ) from error
        if not whole or not (handle.known[inside] or _is_header_of(self.index.table[sample], part[:BLOCK])):
            raise _changed(self.index, shard)
        handle.known[inside] = True

    def _space(self, length: int) -> memoryview:
        """Memory to read into: that of the last time, where no part of it is in use, because fresh pages cost time."""
        space: np.ndarray | None = getattr(self._spaces, "last", None)
        if space is None or len(space) < length or sys.getrefcount(space) > 3:  # here, in the call, in _spaces
            space = self._spaces.last = np.empty(length, np.uint8)
        return memoryview(space.data)[:length]


def _is_header_of(row: np.void, header: memoryview) -> bool:
    """Whether a header is that of the sample: by its size, and by its key where the whole name stands in it."""
    try:
        member = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "replace")
    except tarfile.HeaderError:
        return False
    whole = len(member.name) <= _WHOLE_NAME and member.name.isascii() and "?" not in member.name
    return bool(member.size == row["length"] and (not whole or key_hash(split_name(member.name)[0]) == row["key"]))


def _opened(index: ShardIndex, shard: int) -> Handle:
    """A shard that lies here, or has been fetched. Raises: BadShard, OSError; ValueError where it cannot be had."""
    known = index.shards[shard]
    if not index.shard_set.url:
        handle = Handle(index.directory / known.name, known.images)
        if handle.stamp[0] != known.filesize:
            raise _changed(index, shard)
        return handle
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # removed to make room before it was opened
            return Handle(fetch_shard(index.shard_set, known), known.images)
    raise ValueError(
        f"{known.name} was removed {_TRIES} times before it could be read: too many processes share too little room; "
        "set VITEXP_CACHE_BYTES higher"
    )


def _changed(index: ShardIndex, shard: int, what: str = "") -> BadShard:
    path = index.directory / index.shards[shard].name
    return index.shard_set.bad(f"{path} has changed since it was indexed{what}; leave shards alone while they are read")


def mirror_directory(url: str) -> Path:
    """Where what comes from `url` is saved: below VITEXP_CACHE, or else ~/.cache/vitexp."""
    return cache_root() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16]


def room_bytes() -> int:
    """How much of the disk fetched shards may take: VITEXP_CACHE_BYTES, or else 100 GB."""
    text = os.environ.get("VITEXP_CACHE_BYTES", str(ROOM_BYTES))
    if not text.isdigit():
        raise ValueError(f"VITEXP_CACHE_BYTES is {text!r}; a number of bytes is needed")
    return int(text)


def open_mirror(url: str, split: str = "train") -> ShardIndex:
    """Opens one split of the set at `url` by its index, of which a copy is saved here.

    Raises: ValueError when it cannot be reached or has no index.
    """
    check_url(url)
    base, _, name = url.rstrip("/").rpartition("/")
    directory = mirror_directory(url)
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for one in SPLITS:
        path = directory / f"{name}-{one}.index.json"
        try:
            fetch(f"{base}/{path.name}", path)
            found.append(one)
        except Missing:
            path.unlink(missing_ok=True)
    if split not in found:
        raise ValueError(
            f"there is no {url}-{split}.index.json; the URL must end in the name of the set, and the index, which "
            "`vitexp shards index` makes, must lie beside the shards"
        )
    shard_set = ShardSet(directory, name, {one: [] for one in found}, base)
    checksum = read_document(shard_set, split)["table_sha256"]
    table = shard_set.table(split, checksum)
    with alone(directory / ".table.lock"):
        if not table.is_file():
            fetch(f"{base}/{name}-{split}.index.npy", table, checksum)
    return open_split(shard_set, split)


def fetch_shard(shard_set: ShardSet, shard: Shard) -> Path:
    """The shard on this disk, fetched if it is not there; what was not used for longest makes room for it.

    Raises: ValueError when it cannot be had, or is larger than the room.
    """
    path = shard_set.directory / f"{shard.sha256}.tar"
    with alone(shard_set.directory / f".{shard.sha256[:16]}.lock", wait_seconds=-1):  # fetching has limits of its own
        if path.is_file():
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # in use: the time of its content stays
        else:
            for left in shard_set.directory.glob(f"{path.name}.*.tmp"):  # by a process that was killed
                left.unlink(missing_ok=True)
            hold = path.with_suffix(".hold")
            try:
                make_room(shard_set.directory, shard.filesize, hold)
                fetch(f"{shard_set.url}/{shard.name}", path, shard.sha256)
            finally:
                hold.unlink(missing_ok=True)
    return path


def make_room(directory: Path, needed: int, hold: Path) -> None:
    """Removes fetched shards, those longest unused first, until `needed` bytes more fit; `hold` keeps the place."""
    room = room_bytes()
    if needed > room:
        raise ValueError(f"a shard of {needed} bytes is more than VITEXP_CACHE_BYTES, {room}; set it higher")
    with alone(directory / ".room.lock"):
        states = _in_use(directory)
        used = sum(state.st_size for state in states.values())
        for path in sorted(states, key=lambda p: states[p].st_atime_ns):
            if used + needed > room and path.suffix == ".tar":
                path.unlink(missing_ok=True)
                used -= states[path].st_size
        with open(hold, "wb") as file:
            file.truncate(needed)  # a size without content


def _in_use(directory: Path) -> dict[Path, os.stat_result]:
    """Fetched shards, and the room held for those that are being fetched."""
    states = {}
    for path in [*directory.glob("*.hold"), *directory.glob("*.tar")]:  # in this order none is missed
        with contextlib.suppress(FileNotFoundError):  # another process was here first
            states[path] = path.stat()
    for path in [path for path in states if path.suffix == ".hold"]:
        if time.time() - states[path].st_mtime > WAIT_SECONDS:  # by a process that was killed
            path.unlink(missing_ok=True)
            del states[path]
    return states


def keys_of(index: ShardIndex, samples: np.ndarray) -> list[str]:
    """The key of each sample, of which the index holds only a hash, from the names in the shards: only headers are
    read, and of a shard at a URL the copy on this disk.

    Raises: BadShard when a shard is not what was indexed.
    """
    shards = index.shard_of(samples)
    found: dict[int, str] = {}
    for shard in np.unique(shards).tolist():
        known = index.shards[shard]
        path = fetch_shard(index.shard_set, known) if index.shard_set.url else index.directory / known.name
        try:
            with open(path, "rb") as file:
                names = {member.offset_data // BLOCK: member.name for member in plain_members(file, str(path))}
        except OSError as error:
            raise BadShard(f"{path} cannot be read ({error}); make it again, or its index") from error
        for sample in samples[shards == shard].tolist():
            row = index.table[sample]
            found[sample] = split_name(names.get(int(row["block"]), ""))[0]
            if key_hash(found[sample]) != int(row["key"]):
                raise _changed(index, shard, f": sample {sample} is called {found[sample]!r} now")
    return [found[sample] for sample in samples.tolist()]
