"""Samples of shards at a URL: these are fetched whole, ahead of their use, checked, and then read as local ones.

`data.shards` is the URL of the set with its name, as in `https://host/sets/cifar10` for
`https://host/sets/cifar10-train-000000.tar`; the index must lie beside the shards. All processes of a machine share
what has been fetched.
"""

import contextlib
import hashlib
import os
import tarfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from vitexp.data.read.fetch import Missing, Patience, check_url, fetch
from vitexp.data.shards.index import Shard, ShardIndex, open_split, read_document
from vitexp.data.shards.layout import SPLITS, WAIT_SECONDS, ShardSet, alone, cache_root
from vitexp.data.shards.local import Handle, LocalFiles
from vitexp.data.shards.scan import key_hash, split_name
from vitexp.data.shards.tar import BLOCK, BadShard

ROOM_BYTES = 100_000_000_000
_FETCHES_AT_A_TIME = 4
_OPEN_FILES = 64  # a shard that has been removed to make room takes it all the same while it is open
_TRIES = 3


def mirror_directory(url: str) -> Path:
    """Where what comes from `url` is saved: below VITEXP_CACHE, or else ~/.cache/vitexp."""
    return cache_root() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16]


def room_bytes() -> int:
    """How much of the disk fetched shards may take: VITEXP_CACHE_BYTES, or else 100 GB."""
    text = os.environ.get("VITEXP_CACHE_BYTES", str(ROOM_BYTES))
    if not text.isdigit():
        raise ValueError(f"VITEXP_CACHE_BYTES is {text!r}; a number of bytes is needed")
    return int(text)


def open_mirror(url: str, split: str = "train", patience: Patience | None = None) -> ShardIndex:
    """Opens one split of the set at `url` by its index, of which a copy is saved here.

    Raises: ValueError when it cannot be reached or has no index.
    """
    check_url(url)
    base, _, name = url.rstrip("/").rpartition("/")
    directory = mirror_directory(url)
    directory.mkdir(parents=True, exist_ok=True)
    found = [one for one in SPLITS if _fetch_document(f"{base}/{name}-{one}", directory, patience)]
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
            fetch(f"{base}/{name}-{split}.index.npy", table, checksum, patience)
    return open_split(shard_set, split)


def _fetch_document(stem: str, directory: Path, patience: Patience | None) -> bool:
    path = directory / f"{stem.rpartition('/')[2]}.index.json"
    try:
        fetch(f"{stem}.index.json", path, patience=patience)
    except Missing:
        path.unlink(missing_ok=True)
        return False
    return True


def fetch_shard(shard_set: ShardSet, shard: Shard, patience: Patience | None = None) -> Path:
    """The shard on this disk, fetched if it is not there; what was not used for longest makes room for it.

    Raises: ValueError when it cannot be had, or is larger than the room.
    """
    path = shard_set.directory / f"{shard.sha256}.tar"
    with alone(shard_set.directory / f".{shard.sha256[:16]}.lock"):
        if path.is_file():
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # in use: the time of its content stays
        else:
            for left in shard_set.directory.glob(f"{path.name}.*.tmp"):  # by a process that was killed
                left.unlink(missing_ok=True)
            hold = path.with_suffix(".hold")
            try:
                make_room(shard_set.directory, shard.filesize, hold)
                fetch(f"{shard_set.url}/{shard.name}", path, shard.sha256, patience)
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


class StreamedFiles(LocalFiles):
    """Fetches shards in the background when they are announced, and else when a sample of theirs is asked for."""

    def __init__(self, index: ShardIndex, most: int = _OPEN_FILES, patience: Patience | None = None) -> None:
        super().__init__(index, most)
        self._patience = patience
        self._coming: dict[int, Future[Path]] = {}
        self._turns = threading.Semaphore(_FETCHES_AT_A_TIME)

    def __reduce__(self) -> Any:
        return StreamedFiles, (self.index, self._most, self._patience)

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Announces the shards that are needed together now, and those after them.

        Raises: ValueError when there is no room for what is needed together.
        """
        room, wanted = room_bytes(), self._sizes[now].sum()
        if wanted > room:
            raise ValueError(
                f"one window of {self.index.name} takes {wanted} bytes of shards, and VITEXP_CACHE_BYTES leaves "
                f"{room}; set it higher, or copy the shards to this disk"
            )
        together = wanted + self._sizes[then].sum() <= room
        for shard in [*now.tolist(), *(then.tolist() if together else [])]:
            with self._lock:
                new = shard not in self._open and shard not in self._coming
                if new:
                    self._coming[shard] = Future()
            if new:
                threading.Thread(target=self._run, args=(shard, self._coming[shard]), daemon=True).start()

    def _run(self, shard: int, coming: "Future[Path]") -> None:
        with self._turns:
            try:
                coming.set_result(fetch_shard(self.index.shard_set, self.index.shards[shard], self._patience))
            except BaseException as error:
                coming.set_exception(error)

    def _opened(self, shard: int) -> Handle:
        for _ in range(_TRIES):
            with self._lock:
                coming = self._coming.pop(shard, None)
            path = coming.result() if coming else None
            try:
                found = path or fetch_shard(self.index.shard_set, self.index.shards[shard], self._patience)
                return Handle(str(found), self.index.shards[shard].images)
            except FileNotFoundError:  # removed to make room before it was opened
                continue
        raise ValueError(
            f"{self.index.shards[shard].name} was removed {_TRIES} times before it could be read: too many processes "
            "share too little room; set VITEXP_CACHE_BYTES higher"
        )


def files_of(index: ShardIndex) -> LocalFiles:
    """How the samples of an index are read."""
    return StreamedFiles(index) if index.shard_set.url else LocalFiles(index)


def keys_of(index: ShardIndex, samples: np.ndarray) -> list[str]:
    """The key of each sample, of which the index holds only a hash, from the names in the shards: only headers are
    read, and of a shard at a URL the copy on this disk.

    Raises: BadShard when a shard is not what was indexed.
    """
    shards = index.shard_of(samples)
    found: dict[int, str] = {}
    for shard in np.unique(shards).tolist():
        names = _names(index, shard)
        for sample in samples[shards == shard].tolist():
            row = index.table[sample]
            key = split_name(names.get(int(row["block"]), ""))[0]
            if key_hash(key) != int(row["key"]):
                raise BadShard(
                    f"{index.directory / index.shards[shard].name} has changed since it was indexed: sample {sample} "
                    f"is called {key!r} now; make the index again with `vitexp shards index {index.directory}`"
                )
            found[sample] = key
    return [found[sample] for sample in samples.tolist()]


def _names(index: ShardIndex, shard: int) -> dict[int, str]:
    """The names of a shard's members, by the block that their data begin in."""
    path = index.directory / index.shards[shard].name
    if index.shard_set.url:
        path = fetch_shard(index.shard_set, index.shards[shard])
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="replace") as tar:
            return {member.offset_data // BLOCK: member.name for member in tar}
    except (tarfile.TarError, OSError) as error:
        raise BadShard(f"{path} cannot be read ({error}); make it again, or its index") from error
