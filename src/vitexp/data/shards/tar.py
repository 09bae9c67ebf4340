"""A reader for the tars of a shard set that trusts nothing in them: it lists and reads members, and never extracts.

It takes regular members only. Long names may come as GNU or POSIX (pax) headers. Links, devices, names that leave the
directory, and headers whose checksum is wrong are refused with their place.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
_CHUNK = 1 << 20
_MAX_HEADER = 1 << 16  # bytes of a long name or a pax header; real ones have some hundred
_REGULAR, _DIRECTORY = (b"0", b"\0", b"7"), b"5"
_REFUSED = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class BadShard(ValueError):
    """A shard that is not a whole, safe tar of samples; the message names it and the place."""


@dataclass
class Member:
    """A regular member: its data can be read until the next member is asked for."""

    name: str
    offset: int
    size: int
    _tape: "Tape"

    def read(self) -> bytes:
        """The whole content."""
        return self._tape.take(self.size)


class Tape:
    """Reads a tar from front to end, once, and hashes every byte on the way."""

    def __init__(self, file: BinaryIO, where: str, place: int = 0) -> None:
        self._file, self._where = file, where
        self._hash = hashlib.sha256()
        self.place = place

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises: BadShard where the file ends before."""
        data = self._file.read(size)
        self._hash.update(data)
        self.place += len(data)
        if len(data) < size:
            raise self.bad(f"is cut off at byte {self.place}", "copy or write it again")
        return data

    def skip_to(self, place: int) -> None:
        """Reads on to `place`, for the checksum alone."""
        while self.place < place:
            self.take(min(_CHUNK, place - self.place))

    def finish(self) -> str:
        """Reads what follows the end mark; returns the checksum of the file.

        Raises: BadShard when that is anything but zeros, such as a second tar: other readers would not see it either.
        """
        while data := self._file.read(_CHUNK):
            if data.count(0) < len(data):
                place = self.place + len(data) - len(data.lstrip(b"\0"))
                raise self.bad(
                    f"goes on after its end, at byte {place}, as after `cat a.tar b.tar`",
                    "keep the tars apart, or join them with `tar --concatenate`",
                )
            self._hash.update(data)
            self.place += len(data)
        return self._hash.hexdigest()

    def bad(self, what: str, remedy: str = "write the shard again") -> BadShard:
        """The error for this shard."""
        return BadShard(f"{self._where} {what}; {remedy}")

    def members(self) -> Iterator[Member]:
        """The regular members in their order, up to the end mark."""
        long_name: str | None = None
        long_size: int | None = None
        while (header := self.take(BLOCK)) != bytes(BLOCK):
            start, size, kind = self.place, self._size(header), header[156:157]
            end = start + -(-size // BLOCK) * BLOCK
            if kind in (b"L", b"x", b"g"):
                text = self._header_text(size)
                if kind == b"L":
                    long_name = text.split(b"\0", 1)[0].decode("utf-8", "replace")
                elif kind == b"x":
                    long_name, long_size = self._pax(text, long_name)
                self.skip_to(end)
                continue
            name, long_name = long_name or _name(header), None
            if long_size is not None:
                size, long_size = long_size, None
                end = start + -(-size // BLOCK) * BLOCK
            self._check(name, kind)
            if kind in _REGULAR and not name.endswith("/"):
                yield Member(name, start, size, self)
            self.skip_to(end)

    def _header_text(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise self.bad(
                f"has an extended header of {size} bytes at byte {self.place}, at most {_MAX_HEADER} are read"
            )
        return self.take(size)

    def _size(self, header: bytes) -> int:
        """The size field of a header whose checksum holds."""
        stored = _number(header[148:156])
        if stored is None or stored != sum(header) - sum(header[148:156]) + 8 * 32:
            packed = next((by for magic, by in _PACKED.items() if self.place == BLOCK and header.startswith(magic)), "")
            if packed:
                raise self.bad(f"is compressed by {packed}", f"unpack it: `{packed} -dc` writes the tar")
            raise self.bad(f"is no tar at byte {self.place - BLOCK} (a header's checksum is wrong)")
        size = _number(header[124:136])
        if size is None:
            raise self.bad(f"has a header without a size at byte {self.place - BLOCK}")
        return size

    def _check(self, name: str, kind: bytes) -> None:
        if kind in _REFUSED:
            raise self.bad(f"holds {_REFUSED[kind]}, {name!r}, and only regular files are read")
        if kind not in (*_REGULAR, _DIRECTORY):
            raise self.bad(f"holds {name!r} of the unknown kind {kind!r}, and only regular files are read")
        if name.startswith(("/", "\\")) or "\0" in name or ".." in name.replace("\\", "/").split("/"):
            raise self.bad(f"holds {name!r}, a name that leaves the shard's directory")

    def _pax(self, text: bytes, name: str | None) -> tuple[str | None, int | None]:
        """Name and size from a pax header of records "length key=value\\n"."""
        size: int | None = None
        while text:
            digits, _, rest = text.partition(b" ")
            length = int(digits) if digits.isdigit() and len(digits) < 7 else 0
            if not len(digits) + 2 < length <= len(text):
                raise self.bad(f"has a damaged extended header before byte {self.place}")
            field, _, value = rest[: length - len(digits) - 2].partition(b"=")
            if field == b"path":
                name = value.decode("utf-8", "replace")
            elif field == b"size" and value.isdigit() and len(value) < 19:
                size = int(value)
            text = text[length:]
        return name, size


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
    prefix = header[345:500].split(b"\0", 1)[0].decode("utf-8", "replace") if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def header_fields(header: bytes) -> tuple[str, int | None]:
    """Name and size in a header, unchecked: for errors, and to recognise a member one has seen before."""
    return _name(header), _number(header[124:136]) if len(header) == BLOCK else None


def _number(field: bytes) -> int | None:
    """An octal number, or a big-endian one where the first bit says so; None for anything else."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and all(48 <= d < 56 for d in digits) else None
