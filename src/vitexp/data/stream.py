"""The bytes of samples whose shards lie at a URL: these come whole, ahead of their use, and are read as local ones."""

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from vitexp.data.fetch import Patience
from vitexp.data.files import Handle, LocalFiles
from vitexp.data.index import ShardIndex
from vitexp.data.mirror import fetch_shard, room_bytes

_FETCHES_AT_A_TIME = 4
_OPEN_FILES = 64  # a shard that has been removed to make room takes it all the same while it is open
_TRIES = 3


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
