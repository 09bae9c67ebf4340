"""What one shard holds: reads it once from front to end, checks every sample, and notes where each image lies."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from vitexp.data.read.decode import EXTENSIONS, OTHER_IMAGES, image_header
from vitexp.data.shards.tar import BLOCK, BadShard, Member, Tape

ROW = np.dtype([("key", "<u8"), ("block", "<u4"), ("length", "<u4"), ("label", "<i4"), ("kind", "<u4")])
"""One sample, 24 bytes: its image begins at `block` * 512 of the shard; `kind` is its place in EXTENSIONS."""

MAX_IMAGE_BYTES = 1 << 28
_MAX_LABEL_BYTES = 32
_MAX_SIDE_BYTES = 1 << 24
_REFUSED = {"pkl", "pickle", "pyd", "pth", "pt", "ten", "tb", "mp", "msg", "joblib", "npy", "npz", "py", "so"}


@dataclass
class ShardScan:
    """The rows of a shard's samples in their order, and what is known of the shard as a whole."""

    name: str
    rows: np.ndarray
    filesize: int
    sha256: str
    smallest: tuple[int, int]
    largest: tuple[int, int]
    highest: int
    highest_key: str
    """The largest label, and the first sample that has it."""
    ignored: dict[str, int] = field(default_factory=dict)


@dataclass
class _Sample:
    """One group of adjacent members with the same key, as far as it has been read."""

    key: str
    label: int | None = None
    image: tuple[int, int, int] | None = None
    seen: set[str] = field(default_factory=set)


def key_hash(key: str) -> int:
    """64 bits that stand for a key in the table."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def split_name(name: str) -> tuple[str, str]:
    """Key and extension of a member's name: WebDataset cuts at the first dot of the last part."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return stem if folder in ("", ".") else f"{folder}/{stem}", extension.lower()


def scan_shard(path: Path, name: str = "") -> ShardScan:
    """Reads a shard; `name` is what it is called in its set, where that is not the file's own name.

    Raises: BadShard (or BadImage) naming shard and key for anything but a whole tar of samples, each an image with
    its label.
    """
    name = name or path.name
    with open(path, "rb", buffering=1 << 20) as file:
        scan = _Scan(name, Tape(file, name))
        samples = list(scan.samples())
        sha256, filesize = scan.tape.finish(), scan.tape.place
    if not samples:
        raise BadShard(f"{name} holds no samples; remove it or write it again")
    rows = np.array(samples, dtype=ROW)
    return ShardScan(name, rows, filesize, sha256, scan.smallest, scan.largest, *scan.highest, scan.ignored)


class _Scan:
    """Groups the members of one shard into samples."""

    def __init__(self, name: str, tape: Tape) -> None:
        self.name, self.tape = name, tape
        self.ignored: dict[str, int] = {}
        self.done: set[str] = set()
        self.aside: dict[str, dict[str, str]] = {}
        """Members named like images or labels that are part of no sample, by their names without the suffix."""
        self.smallest, self.largest = (1 << 30, 1 << 30), (0, 0)
        self.highest = -1, ""

    def samples(self) -> Iterator[tuple[int, int, int, int, int]]:
        """A table row for each sample."""
        sample: _Sample | None = None
        for member in self.tape.members():
            key, extension = self._split(member)
            if extension is None:
                continue
            if sample is None or key != sample.key:
                if sample is not None:
                    yield self._row(sample)
                    self.done.add(sample.key)
                if key in self.done:
                    raise self._bad(key, "occurs twice (the members of a sample must be adjacent, and keys unique)")
                sample = _Sample(key)
            self._take(sample, member, extension)
        if sample is not None:
            yield self._row(sample)
            self.done.add(sample.key)
        self._refuse_lost()

    def _refuse_lost(self) -> None:
        """Raises: BadShard for an image that is no part of a sample, or is a sample of its own by its dotted name."""
        for names in self.aside.values():
            image = next((name for suffix, name in names.items() if suffix != "cls"), None)
            if image is None or (split_name(image)[0] in self.done and "cls" not in names):
                continue  # a second image of a sample, such as 000.thumb.jpg beside 000.jpg
            key, extension = split_name(image)
            if "." in extension:
                raise self.tape.bad(
                    f"holds {image!r}, whose key has a dot: WebDataset cuts a name at the first dot, here into key "
                    f"{key!r} and extension {extension!r}",
                    "write the shard again with other characters for the dots",
                )
            raise self.tape.bad(f"holds {image!r}, an image of a kind that is not read", "convert such images to PNG")

    def _split(self, member: Member) -> tuple[str, str | None]:
        """Key and extension of a member; extension None for what is passed over."""
        key, extension = split_name(member.name)
        if extension.rpartition(".")[2] in _REFUSED:
            raise self.tape.bad(f"holds {member.name!r}, which other readers would execute", "leave such members out")
        if not key.rpartition("/")[2] or extension not in (*EXTENSIONS, "cls", "json"):
            self.ignored[extension] = self.ignored.get(extension, 0) + 1
            stem, _, suffix = member.name.rpartition(".")
            if key.rpartition("/")[2] and (suffix := suffix.lower()) in (*EXTENSIONS, *OTHER_IMAGES, "cls"):
                self.aside.setdefault(stem, {})[suffix] = member.name
            return "", None
        return key, extension

    def _take(self, sample: _Sample, member: Member, extension: str) -> None:
        kind = "image" if extension in EXTENSIONS else extension
        if kind in sample.seen:
            raise self._bad(sample.key, f"has two {'images' if kind == 'image' else f'.{kind} members'}")
        sample.seen.add(kind)
        limit = {"image": MAX_IMAGE_BYTES, "cls": _MAX_LABEL_BYTES}.get(kind, _MAX_SIDE_BYTES)
        if member.size > limit:
            raise self._bad(sample.key, f"has {member.size} bytes of .{extension}, at most {limit} are read")
        if kind == "image":
            sample.image = self._image(sample.key, member, extension)
        elif kind == "cls":
            sample.label = self._label(sample.key, member.read())

    def _image(self, key: str, member: Member, extension: str) -> tuple[int, int, int]:
        data, where = member.read(), f"{self.name}: {key}"
        kind, height, width = image_header(data, extension, where)
        self.smallest = min(self.smallest[0], height), min(self.smallest[1], width)
        self.largest = max(self.largest[0], height), max(self.largest[1], width)
        if member.offset // BLOCK >= 1 << 32:
            raise self.tape.bad("is larger than 2 TiB", "write smaller shards")
        return member.offset // BLOCK, member.size, EXTENSIONS.index(kind)

    def _label(self, key: str, text: bytes) -> int:
        label = text.strip()
        if label.isdigit() and int(label) < 1 << 31:
            return int(label)
        if not label:
            raise self._bad(key, "has an empty .cls")
        raise self._bad(key, f"has the label {label!r}", f"a label is the number of a class, from 0 on{_hint(label)}")

    def _row(self, sample: _Sample) -> tuple[int, int, int, int, int]:
        if sample.image is None:
            images = (name for names in self.aside.values() for suffix, name in names.items() if suffix != "cls")
            other = next((name for name in images if split_name(name)[0] == sample.key), None)
            hint = f"; its {other!r} is not read: make it a PNG, and use no dot in keys" if other else ""
            raise self._bad(sample.key, f"has no image ({', '.join(f'.{e}' for e in EXTENSIONS)}){hint}")
        if sample.label is None:
            hint = "; its .json is not read for one: write the number of its class into a .cls"
            raise self._bad(sample.key, f"has no .cls with its label{hint if 'json' in sample.seen else ''}")
        if sample.label > self.highest[0]:
            self.highest = sample.label, sample.key
        block, length, kind = sample.image
        return key_hash(sample.key), block, length, sample.label, kind

    def _bad(self, key: str, what: str, remedy: str = "write the shard again") -> BadShard:
        return BadShard(f"{self.name}: sample {key!r} {what}; {remedy}")


def _hint(label: bytes) -> str:
    """What may be meant by a label that is no whole number."""
    if label.startswith(b"\xef\xbb\xbf"):
        return ": write it as plain ASCII, without a byte order mark"
    try:
        number = float(label)
    except ValueError:
        return "; write the number of the line that the class has in classes.txt, the first being 0"
    whole = number.is_integer() and 0 <= number < 1 << 31
    return f": write {int(number)} instead" if whole else ", and none is negative or a fraction"
