"""One file from a URL to this disk: whole and checked, tried again where the network fails, and with an end.

http and https need nothing else; what other schemes mean (s3, gs, ...) fsspec knows, with its package for each.
"""

import errno
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "file")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Patience:
    """How long a network may take: `attempts`, with waits that double from the first, and limits for each."""

    attempts: int = 6
    first_wait_seconds: float = 1.0
    silence_seconds: float = 30.0
    """Without a byte."""
    least_bytes_per_second: float = 50_000.0
    """On the whole, after the first `silence_seconds`."""


class Missing(ValueError):
    """There is nothing at the URL."""


def is_url(text: str) -> bool:
    """Whether `text` has a scheme, and so is no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) is not None


def check_url(url: str) -> None:
    """Raises: ValueError for a scheme that is not opened, above all for those that run programs."""
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES or not url[len(scheme) :].startswith("://"):
        raise ValueError(
            f"data.shards {url!r}: {scheme}: is not opened (no program is ever run for a URL); "
            f"use {', '.join(SCHEMES)}, or a directory"
        )


def fetch(url: str, path: Path, sha256: str | None = None, patience: Patience | None = None) -> None:
    """Puts what lies at `url` at `path`, whole or not at all.

    Raises: Missing where there is nothing; ValueError naming `url` when all attempts have failed, or the disk is full.
    """
    check_url(url)
    patience = patience or Patience()
    for attempt in range(patience.attempts):
        try:
            return _once(url, path, sha256, patience)
        except (OSError, http.client.HTTPException, _Broken) as error:
            _give_up(url, path, error)
            reason = error
        if attempt + 1 < patience.attempts:
            time.sleep(patience.first_wait_seconds * 2**attempt)
    raise ValueError(
        f"{url} could not be fetched in {patience.attempts} attempts ({type(reason).__name__}: {reason}); "
        "see whether it can be reached, then run this again: it goes on from its last checkpoint"
    ) from reason


class _Broken(Exception):
    """An answer that is not the whole file, or comes too slowly."""


def _once(url: str, path: Path, sha256: str | None, patience: Patience) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with _open(url, patience) as source, open(unfinished, "wb") as file:
            found = _copy(source, file, patience)
            file.flush()
            os.fsync(file.fileno())
        if sha256 is not None and found != sha256:
            raise _Broken(f"its checksum is {found[:16]}..., that in the index {sha256[:16]}...")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _open(url: str, patience: Patience) -> BinaryIO:
    if url.lower().startswith(("http://", "https://")):
        return urllib.request.urlopen(url, timeout=patience.silence_seconds)
    import fsspec

    try:
        return fsspec.open(url, "rb").open()
    except ImportError as error:
        raise ValueError(f"{url} needs another package: {error}; install it") from error


def _copy(source: BinaryIO, file: BinaryIO, patience: Patience) -> str:
    """Copies to the end; returns the checksum of what came."""
    whole, start, count = hashlib.sha256(), time.monotonic(), 0
    while data := source.read(_CHUNK):
        file.write(data)
        whole.update(data)
        count += len(data)
        late = time.monotonic() - start - patience.silence_seconds
        if late > 0 and count < late * patience.least_bytes_per_second:
            raise _Broken(f"only {count} bytes came in {late + patience.silence_seconds:.0f} seconds")
    length = getattr(source, "length", 0)  # of an HTTP answer: what should still have come
    if length:
        raise _Broken(f"it broke off {length} bytes before its end")
    return whole.hexdigest()


def _give_up(url: str, path: Path, error: Exception) -> None:
    """Raises what another attempt cannot mend."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    if isinstance(error, FileNotFoundError) or (isinstance(error, urllib.error.HTTPError) and error.code in (404, 410)):
        raise Missing(f"there is nothing at {url}") from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise ValueError(
            f"the disk of {path.parent} is full; free some space, or set VITEXP_CACHE to a directory on a larger disk"
        ) from error
    if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
        raise ValueError(f"{url} may not be read ({error}); see to its access rights") from error
