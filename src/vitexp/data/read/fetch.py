"""One file from a URL to this disk: whole and checked, tried again where the network fails, and with an end.

aiohttp fetches http and https, since it takes a limit for every step; fsspec the other schemes (s3, gs, ...), each with
its package. Headers have a deadline, a body has a least rate, both checked whenever bytes come.
"""

import asyncio
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexp.record import whole_file

SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "file")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Patience:
    """How long a network may take: `attempts`, with waits that double from the first, and limits for each."""

    attempts: int = 6
    slow_attempts: int = 2
    """As many may end because a server sends, but too slowly."""
    first_wait_seconds: float = 1.0
    silence_seconds: float = 20.0
    """Without a byte; and from the request to the end of the headers."""
    least_bytes_per_second: float = 50_000.0
    """On the whole, after the first `silence_seconds`."""
    deadline_seconds: float = 6 * 3600.0
    """For an attempt, however fast."""


PATIENCE = Patience()


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


def fetch(
    url: str, path: Path, checksum: str | None = None, report: Callable[[int], object] = lambda count: None
) -> None:
    """Puts what lies at `url` at `path`, whole or not at all; `report` is called with the size of each piece.

    `checksum` is that of sha256, or of md5 where it has 32 digits.
    Raises: Missing where there is nothing; ValueError naming `url` when all attempts have failed, or the disk is full.
    """
    check_url(url)
    attempt, slow = 0, 0
    while True:
        attempt += 1
        try:
            return _once(url, path, checksum, report)
        except (OSError, _Broken) as error:
            _give_up(url, path, error)
            reason, slow = error, slow + isinstance(error, _Slow)
        if attempt == PATIENCE.attempts or slow == PATIENCE.slow_attempts:
            break
        time.sleep(PATIENCE.first_wait_seconds * 2 ** (attempt - 1))
    raise ValueError(
        f"{url} could not be fetched in {attempt} attempts ({str(reason) or type(reason).__name__}); see whether it "
        "can be reached, then run this again"
    ) from reason


class _Broken(Exception):
    """An answer that is not the whole file."""


class _Slow(_Broken):
    """An answer that comes too slowly."""


def _once(url: str, path: Path, checksum: str | None, report: Callable[[int], object]) -> None:
    hashed = hashlib.new("md5" if checksum and len(checksum) == 32 else "sha256", usedforsecurity=False)
    start, count = time.monotonic(), 0

    def take(data: bytes) -> None:
        nonlocal count
        file.write(data)
        hashed.update(data)
        report(len(data))
        count += len(data)
        seconds = time.monotonic() - start
        least = (seconds - PATIENCE.silence_seconds) * PATIENCE.least_bytes_per_second
        if count < least or seconds > PATIENCE.deadline_seconds:
            raise _Slow(f"only {count} bytes came in {seconds:.0f} seconds")

    with whole_file(path, path.with_name(f"{path.name}.{os.getpid()}.tmp")) as file:
        if url.lower().startswith(("http://", "https://")):
            asyncio.run(_over_http(url, take))
        else:
            _by_fsspec(url, take)
        if checksum is not None and (found := hashed.hexdigest()) != checksum:
            raise _Broken(f"its checksum is {found[:16]}..., the right one {checksum[:16]}...")


async def _over_http(url: str, take: Callable[[bytes], None]) -> None:
    """Follows redirects; what a server compresses on the way is unpacked, but a .gz stays what it is."""
    import aiohttp

    silence = PATIENCE.silence_seconds
    options: dict[str, Any] = {
        "headers": {"Accept-Encoding": "identity"},
        "trust_env": True,
        "raise_for_status": True,
        "auto_decompress": not url.lower().endswith(("gz", ".zip")),
        "timeout": aiohttp.ClientTimeout(total=None, sock_connect=silence / 2, sock_read=silence),
    }
    try:
        async with (
            asyncio.timeout(silence) as limit,
            aiohttp.ClientSession(**options) as session,
            session.get(url) as answer,
        ):
            limit.reschedule(None)
            async for data in answer.content.iter_any():
                take(data)
    except TimeoutError as error:
        if limit.expired():
            raise _Slow(f"no whole answer came in {silence:g} seconds") from error
        raise _Broken(f"no byte came for {silence:g} seconds") from error
    except aiohttp.ClientPayloadError as error:
        raise _Broken("it broke off before its end") from error
    except aiohttp.ClientError as error:
        raise _Broken(str(error)) from error


def _by_fsspec(url: str, take: Callable[[bytes], None]) -> None:
    import fsspec

    try:
        source = fsspec.open(url, "rb").open()
    except ImportError as error:
        raise ValueError(f"{url} needs another package: {error}; install it") from error
    with source:
        while data := source.read(_CHUNK):
            take(data)


def _give_up(url: str, path: Path, error: Exception) -> None:
    """Raises what another attempt cannot mend."""
    status = getattr(error.__cause__, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        raise Missing(f"there is nothing at {url}") from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise ValueError(
            f"the disk of {path.parent} is full; free some space, or set VITEXP_CACHE to a directory on a larger disk"
        ) from error
    if status in (401, 403):
        raise ValueError(f"{url} may not be read ({error}); see to its access rights") from error
