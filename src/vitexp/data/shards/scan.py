"""What one shard holds: every sample is checked, and where its image lies is noted. Nothing is ever extracted."""

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vitexp.data.read.decode import EXTENSIONS, OTHER_IMAGES, image_header
from vitexp.data.shards.layout import BadShard

ROW = np.dtype([("key", "<u8"), ("block", "<u4"), ("length", "<u4"), ("label", "<i4"), ("kind", "<u4")])
"""One sample, 24 bytes: its image begins at `block` * 512 of the shard; `kind` is its place in EXTENSIONS."""

BLOCK = tarfile.BLOCKSIZE
MAX_IMAGE_BYTES = 1 << 28
_MAX_BYTES = {"image": MAX_IMAGE_BYTES, "cls": 32, "json": 1 << 24}
_MAX_NAME = 1 << 12
_CHUNK = 1 << 20
_EXECUTABLE = {"pkl", "pickle", "pyd", "pth", "pt", "ten", "tb", "mp", "msg", "joblib", "npy", "npz", "py", "so"}


@dataclass(frozen=True)
class ShardScan:
    """The rows of a shard's samples in their order, and what is known of the shard as a whole."""

    name: str
    rows: np.ndarray
    filesize: int
    sha256: str
    smallest: list[int]
    largest: list[int]
    """The least and the greatest height and width."""
    highest_key: str
    """Of the first sample with the largest label."""
    ignored: Counter[str]
    """The members that were passed over, by their extension."""


def key_hash(key: str) -> int:
    """64 bits that stand for a key in the table."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def split_name(name: str) -> tuple[str, str]:
    """Key and extension of a member's name: WebDataset cuts at the first dot of the last part."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return stem if folder in ("", ".") else f"{folder}/{stem}", extension.lower()


def plain_members(file: BinaryIO, where: str) -> Iterator[tarfile.TarInfo]:
    """The regular files in a tar, in their order; `file` may be read from and moved in between.

    Raises: BadShard for what is no whole tar of plain files in its directory, with nothing but zeros after its end.
    """
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="replace") as tar:
            while member := tar.next():
                tar.members = []  # type: ignore[attr-defined]  # they would all be kept
                _check_member(member, where)
                if member.isreg():
                    yield member
            end = tar.offset
    except BadShard:
        raise
    except Exception as error:  # tarfile may raise anything at all on hostile bytes
        raise BadShard(
            f"{where} is no whole, uncompressed tar ({error or type(error).__name__}); copy it again, or unpack it"
        ) from error
    file.seek(end)
    if len(mark := file.read(BLOCK)) < BLOCK:
        raise BadShard(f"{where} is cut off at byte {end + len(mark)}; copy or write it again")
    if any(mark):
        raise BadShard(f"{where} is damaged at byte {end} (a header's checksum is wrong); copy or write it again")
    while data := file.read(_CHUNK):
        if data.count(0) < len(data):  # such as a second tar: other readers would not see it either
            place = file.tell() - len(data.lstrip(b"\0"))
            raise BadShard(
                f"{where} goes on after its end, at byte {place}, as after `cat a.tar b.tar`; "
                "keep the tars apart, or join them with `tar --concatenate`"
            )


def _check_member(member: tarfile.TarInfo, where: str) -> None:
    name = member.name[:_MAX_NAME]
    if not (member.isreg() or member.isdir()) or member.issparse() or member.size < 0:
        raise BadShard(
            f"{where} holds {name!r}, a link or a device or a file with holes, and only plain files are read; write it "
            "again with `tar --dereference --hard-dereference`"
        )
    parts = name.replace("\\", "/").split("/")
    if len(member.name) > _MAX_NAME or "\0" in name or ".." in parts or not parts[0]:
        raise BadShard(f"{where} holds {name[:99]!r}, a name that is too long or leaves the directory; write it again")


def scan_shard(path: Path, name: str = "") -> ShardScan:
    """Reads a shard; `name` is what it is called in its set, where that is not the file's own name.

    Raises: BadShard (or BadImage) naming shard and key for anything but a whole tar of samples, each an image with
    its label.
    """
    with open(path, "rb") as file:
        sha256, filesize = hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size
        scan = _Scan(name or path.name, file)
        scan.read()
    if not scan.samples:
        raise BadShard(f"{scan.name} holds no samples; remove it or write it again")
    rows = np.array(list(scan.samples.values()), dtype=ROW)
    return ShardScan(
        name=scan.name,
        rows=rows,
        filesize=filesize,
        sha256=sha256,
        smallest=np.min(scan.sizes, axis=0).tolist(),
        largest=np.max(scan.sizes, axis=0).tolist(),
        highest_key=list(scan.samples)[rows["label"].argmax()],
        ignored=Counter(split_name(other)[1] for other in scan.others),
    )


class _Scan:
    """Groups the members of one shard into samples."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self.file = name, file
        self.samples: dict[str, tuple[int, int, int, int, int]] = {}
        """A table row for each key."""
        self.sizes: list[tuple[int, int]] = []
        self.others: list[str] = []
        """The names of members that are part of no sample."""

    def read(self) -> None:
        """Reads all samples. Raises: BadShard or BadImage."""
        for key, members in groupby(self._members(), lambda member: split_name(member.name)[0]):
            if key in self.samples:
                raise self._bad(key, "occurs twice (the members of a sample must be adjacent, and keys unique)")
            self.samples[key] = self._row(key, members)
        self._refuse_lost_images()

    def _members(self) -> Iterator[tarfile.TarInfo]:
        for member in plain_members(self.file, self.name):
            key, extension = split_name(member.name)
            if extension.rpartition(".")[2] in _EXECUTABLE:
                raise BadShard(
                    f"{self.name} holds {member.name!r}, which other readers would execute; leave such members out"
                )
            if not key.rpartition("/")[2] or extension not in (*EXTENSIONS, "cls", "json"):
                self.others.append(member.name)
            else:
                yield member

    def _row(self, key: str, members: Iterable[tarfile.TarInfo]) -> tuple[int, int, int, int, int]:
        found: dict[str, tarfile.TarInfo] = {}
        for member in members:
            extension = split_name(member.name)[1]
            part = "image" if extension in EXTENSIONS else extension
            if part in found:
                raise self._bad(key, f"has two {'images' if part == 'image' else f'.{part} members'}")
            if member.size > _MAX_BYTES[part]:
                raise self._bad(key, f"has {member.size} bytes of .{extension}, at most {_MAX_BYTES[part]} are read")
            found[part] = member
        if "image" not in found:
            other = next((name for name in self.others if _is_image(name) and split_name(name)[0] == key), None)
            hint = f"; its {other!r} is not read: make it a PNG, and use no dot in keys" if other else ""
            raise self._bad(key, f"has no image ({', '.join(f'.{e}' for e in EXTENSIONS)}){hint}")
        if "cls" not in found:
            hint = "; its .json is not read for one: write the number of its class into a .cls"
            raise self._bad(key, f"has no .cls with its label{hint if 'json' in found else ''}")
        image = found["image"]
        kind, height, width = image_header(self._content(image), split_name(image.name)[1], f"{self.name}: {key}")
        self.sizes.append((height, width))
        block = image.offset_data // BLOCK
        if block >= 1 << 32:
            raise BadShard(f"{self.name} is larger than 2 TiB; write smaller shards")
        return key_hash(key), block, image.size, self._label(key, self._content(found["cls"])), EXTENSIONS.index(kind)

    def _content(self, member: tarfile.TarInfo) -> bytes:
        self.file.seek(member.offset_data)
        return self.file.read(member.size)

    def _label(self, key: str, text: bytes) -> int:
        label = text.strip()
        if not label.isdigit() or int(label) >= 1 << 31:
            hint = "write the number of its class in plain digits: that of its line in classes.txt, the first being 0"
            raise self._bad(key, f"has the label {label!r}" if label else "has an empty .cls", hint)
        return int(label)

    def _refuse_lost_images(self) -> None:
        """Raises: BadShard for an image that is no part of a sample, or is a sample of its own by its dotted name."""
        labelled = {name.lower().removesuffix(".cls") for name in self.others if name.lower().endswith(".cls")}
        for name in filter(_is_image, self.others):
            key, extension = split_name(name)
            if key in self.samples and name.lower().rpartition(".")[0] not in labelled:
                continue  # a second image of a sample, such as 000.thumb.jpg beside 000.jpg
            if "." in extension:
                raise BadShard(
                    f"{self.name} holds {name!r}, whose key has a dot: WebDataset cuts a name at the first dot, here "
                    f"into key {key!r} and extension {extension!r}; write other characters for the dots"
                )
            raise BadShard(f"{self.name} holds {name!r}, an image of a kind that is not read; convert it to PNG")

    def _bad(self, key: str, what: str, remedy: str = "write the shard again") -> BadShard:
        return BadShard(f"{self.name}: sample {key!r} {what}; {remedy}")


def _is_image(name: str) -> bool:
    """By its last suffix; names that are hidden or nothing but a suffix count for nothing."""
    suffix = name.lower().rpartition(".")[2]
    return bool(split_name(name)[0].rpartition("/")[2]) and suffix in (*EXTENSIONS, *OTHER_IMAGES)
