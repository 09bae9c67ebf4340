"""A set at a URL, and the part of it that this disk holds: fetched whole, checked, shared by all processes.

`data.shards` is then the URL of the set with its name, as in `https://host/sets/cifar10` for
`https://host/sets/cifar10-train-000000.tar`; the index must lie beside the shards.
"""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from vitexp.data.fetch import Missing, Patience, check_url, fetch
from vitexp.data.index import Shard, ShardIndex, open_split, read_document
from vitexp.data.layout import SPLITS, ShardSet, cache_root
from vitexp.data.lock import WAIT_SECONDS, alone

ROOM_BYTES = 100_000_000_000


def mirror_directory(url: str) -> Path:
    """Where what comes from `url` is kept: below VITEXP_CACHE, or else ~/.cache/vitexp."""
    return cache_root() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16]


def room_bytes() -> int:
    """How much of the disk fetched shards may take: VITEXP_CACHE_BYTES, or else 100 GB."""
    text = os.environ.get("VITEXP_CACHE_BYTES", str(ROOM_BYTES))
    if not text.isdigit():
        raise ValueError(f"VITEXP_CACHE_BYTES is {text!r}; a number of bytes is needed")
    return int(text)


def open_mirror(url: str, split: str = "train", patience: Patience | None = None) -> ShardIndex:
    """Opens one split of the set at `url` by its index, of which a copy is kept here.

    Raises: ValueError when it cannot be reached or has no index.
    """
    check_url(url)
    base, _, name = url.rstrip("/").rpartition("/")
    directory = mirror_directory(url)
    directory.mkdir(parents=True, exist_ok=True)
    found = [word for word in SPLITS if _fetch_document(f"{base}/{name}-{word}", directory, patience)]
    if split not in found:
        raise ValueError(
            f"there is no {url}-{split}.index.json; the URL must end in the name of the set, and the index, which "
            "`vitexp shards index` makes, must lie beside the shards"
        )
    shard_set = ShardSet(directory, name, {word: [] for word in found}, base)
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
