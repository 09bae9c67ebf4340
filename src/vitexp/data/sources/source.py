"""A data set as tables, before it becomes shards: the class of each image, and its bytes or its pixels on demand. And
the sources that a user brings: a folder or a tar of class folders, or an .npz of arrays.

Nothing is decoded or held here: a split answers for any one of its images, in any order and from any thread.
"""

import hashlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from vitexp.data.read.decode import EXTENSIONS, OTHER_IMAGES
from vitexp.data.shards.layout import FEW_CLASSES, SPLITS, files_below, hidden, read_names, spelled
from vitexp.data.shards.scan import plain_members
from vitexp.words import listed

Content = bytes | np.ndarray
TEST_FRACTION = 0.2  # of a source that comes without a test set
KEY_CHARACTERS = 80
_PLAIN = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*\.\w+")  # a - inside a part would make joining by - ambiguous
_NPZ_WORDS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split. `read(i)` gives the file's own bytes, or uint8 pixels (H, W) or (H, W, 3) where there is no file."""

    keys: Sequence[str]
    labels: np.ndarray
    read: Callable[[int], Content]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> "Split":
        """The images at `rows` as a split of their own."""
        keys = [self.keys[i] for i in rows]
        return Split(keys=keys, labels=self.labels[rows], read=lambda i: self.read(int(rows[i])))


def numbered(split: str, labels: np.ndarray, read: Callable[[int], Content]) -> Split:
    """A split of images without names: the keys are its name and a number."""
    digits = len(str(len(labels) - 1))
    return Split(keys=[f"{split}-{i:0{digits}d}" for i in range(len(labels))], labels=labels, read=read)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: its name, the names of its classes in the order of their labels, and its splits by name."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    """What the user should know, such as files that were left out."""
    identity: str = ""
    """Tells other content under the same keys, as far as that is known without reading it all."""

    def __post_init__(self) -> None:
        for strange in [label for label in self.classes if not _is_line(label)][:1]:
            raise ValueError(f"{self.name}: a class is named {strange!r}; a name is a line of text without margins")
        keys: set[str] = set()
        for name, split in self.splits.items():
            if not len(split):
                raise ValueError(f"{self.name} {name}: there is no image in this split; add images or leave it out")
            if len(keys | set(split.keys)) < len(keys) + len(split):
                raise ValueError(f"{self.name} {name}: a key occurs twice; every image needs a key of its own")
            keys |= set(split.keys)
            if not 0 <= split.labels.min() <= split.labels.max() < len(self.classes):
                raise ValueError(
                    f"{self.name} {name}: labels run from {split.labels.min()} to {split.labels.max()}, "
                    f"but there are {len(self.classes)} classes, 0 to {len(self.classes) - 1}; correct the labels"
                )


def _is_line(label: str) -> bool:
    """Whether a name can stand in a line of classes.txt and be read again as it was."""
    return label.splitlines() == [label.strip()] != [""] and label.encode("utf-8", "replace").decode() == label


def hold_out(split: Split, fraction: float, seed: int = 0, classes: Sequence[str] = ()) -> tuple[Split, Split]:
    """Divides a split in two, class by class, by the rank of a hash of each key: the same images on every machine.

    Raises: ValueError when a class would be left without an image on one side.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a held-out fraction of {fraction} is not between 0 and 1")
    rank = np.array([digest(key, seed) for key in split.keys])
    held = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        rows = np.flatnonzero(split.labels == label)
        if len(rows) < 2:
            named = f"class {classes[label]}" if classes else f"the class of label {label}"
            raise ValueError(f"{named} has one image: nothing can be held out; add images or remove the class")
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        held[rows[np.argsort(rank[rows], kind="stable")[:count]]] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def digest(key: str, seed: int) -> int:
    """A number in 0..2^63 that depends on the key and the seed alone, never on the images around it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()) >> 1


def folder(path: Path) -> Source:
    """Images at their own bytes, by the folder of their class: CLASS/..., or train/CLASS/..., test/CLASS/..."""
    sizes = dict(files_below(path))
    source = _class_folders(path.resolve().name, str(path), sizes, lambda name: (path / name).read_bytes())
    empty = _without_images(path, sizes)
    return replace(source, notes=[*source.notes, f"folders without an image left out: {empty}"]) if empty else source


def _without_images(path: Path, names: Iterable[str]) -> str:
    """The folders beside others of their kind that hold no image below them, a few by name."""
    full = {parent for name in names if _is_image(name) for parent in PurePosixPath(name).parents}
    empty = sorted(
        inside.relative_to(path).as_posix()
        for folder in {folder.parent for folder in full}
        for inside in (path / folder).iterdir()
        if inside.is_dir() and not hidden(inside.name) and PurePosixPath(inside.relative_to(path)) not in full
    )
    return listed(empty, _SHOWN)


def _is_image(name: str) -> bool:
    """By its name; those of kinds that are not read too: they are refused one by one, never left out."""
    return name.rpartition(".")[2].lower() in (*EXTENSIONS, *OTHER_IMAGES)


def tar(path: Path) -> Source:
    """The same from an uncompressed tar, read in place. Raises: ValueError for a link, or what would be left out."""
    with open(path, "rb") as file:
        members = plain_members(file, str(path))
        places = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in members}
    handle = os.open(path, os.O_RDONLY)

    def read(name: str) -> bytes:
        start, size = places[name]
        return os.pread(handle, size, start)

    return _class_folders(path.name.partition(".")[0], str(path), {n: size for n, (_, size) in places.items()}, read)


def _class_folders(name: str, where: str, sizes: dict[str, int], read: Callable[[str], bytes]) -> Source:
    """Images by their paths, which say the class and perhaps the split."""
    shown = [path for path in sorted(sizes) if not any(map(hidden, PurePosixPath(path).parts))]
    images = [path for path in shown if _is_image(path)]
    others = Counter(PurePosixPath(path).suffix or PurePosixPath(path).name for path in shown if not _is_image(path))
    parts = _without_common_folder({image: PurePosixPath(image).parts for image in images})
    found = _by_split(where, parts)
    if "train" not in found:
        if any(path.lower().endswith(".tar") for path in sizes):
            raise ValueError(f"{where} holds tars and no class folders: shards need no making, `vitexp shards info` it")
        only = f", only those of {', '.join(found)}" if found else ""
        raise ValueError(f"{where} holds no training image ({', '.join(EXTENSIONS)}) in a class folder{only}")
    classes = tuple(sorted(set(found["train"].values())))
    keys = dict(zip(images, keys_of(["/".join(parts[image]) for image in images]), strict=True))
    splits = {split: _labelled(f"{where}: {split}", labels, classes, keys, read) for split, labels in found.items()}
    most = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    return Source(
        name=clean(name),
        classes=classes,
        splits=splits,
        notes=[f"{others.total()} files of other kinds left out ({most})"] if others else [],
        identity=hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest(),
    )


def _without_common_folder(parts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leaves out folders that all images share and that are neither split nor class."""
    while parts and all(len(way) > 2 for way in parts.values()):
        first = {way[0] for way in parts.values()}
        if len(first) > 1 or all(map(spelled, first)):
            break
        parts = {image: way[1:] for image, way in parts.items()}
    return parts


def _by_split(where: str, parts: dict[str, tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """For each split the class of each of its images; all are for training where no folder is called as a split."""
    spellings = {way[0]: split for way in parts.values() if (split := spelled(way[0]))}
    if not spellings:
        _refuse_unclear(where, parts)
    found: dict[str, dict[str, str]] = {}
    for image, (top, *inside) in parts.items():
        if spellings and top not in spellings:
            raise ValueError(
                f"{where}: {image} lies beside {', '.join(sorted(spellings))}, which are splits; move it into one "
                "of them (or, if those are classes too, move all of them into a folder train)"
            )
        labels = found.setdefault(spellings.get(top, "train"), {})
        if len(inside) < (2 if spellings else 1):
            raise ValueError(f"{where}: {image} lies in no class folder; put it into one")
        labels[image] = inside[0] if spellings else top
    for split in found:
        if len(same := [top for top, meant in spellings.items() if meant == split]) > 1:
            raise ValueError(f"{where}: {' and '.join(same)} would both be {split}; rename or remove one")
    return found


def _refuse_unclear(where: str, parts: dict[str, tuple[str, ...]]) -> None:
    """Raises: ValueError for folders such as my_train/CLASS and my_test/CLASS, which may be splits or classes."""
    if not all(len(way) > 2 for way in parts.values()):
        return
    tops = sorted({way[0] for way in parts.values()})
    try:
        named = [top for top, placed in zip(tops, read_names(tops), strict=True) if placed.split]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if named:
        raise ValueError(f"{where}: {', '.join(named)} may be splits or classes; rename them {', '.join(SPLITS)}")


def _labelled(
    where: str, labels: dict[str, str], classes: tuple[str, ...], keys: dict[str, str], read: Callable[[str], bytes]
) -> Split:
    if strange := sorted(set(labels.values()) - set(classes)):
        raise ValueError(f"{where} has classes that train lacks ({', '.join(strange[:_SHOWN])}); add or remove them")
    number = {label: i for i, label in enumerate(classes)}
    images = list(labels)
    return Split(
        keys=[keys[image] for image in images],
        labels=np.array([number[label] for label in labels.values()], np.int64),
        read=lambda i: read(images[i]),
    )


def keys_of(names: list[str]) -> list[str]:
    """A key for each path: its parts where that is plain and unique, else with a hash of the whole path."""
    plain = ["-".join(PurePosixPath(name).with_suffix("").parts) for name in names]
    count = Counter(plain)
    return [
        key
        if count[key] == 1 and len(key) <= KEY_CHARACTERS and _PLAIN.fullmatch(name)
        else f"{clean(key)[: KEY_CHARACTERS - 11]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
        for key, name in zip(plain, names, strict=True)
    ]


def clean(text: str) -> str:
    """Any other character than letters, digits, - and _ becomes _."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text) or "_"


def npz(path: Path) -> Source:
    """Arrays x_train, y_train, x_test, y_test (or train_images, train_labels, ...), and perhaps `classes`.

    Shapes: images uint8 (N, H, W) or (N, H, W, 3), labels integers (N,) or (N, 1), classes strings (C,).
    """
    try:
        with np.load(path, allow_pickle=False) as arrays, zipfile.ZipFile(path) as parts:
            found = {
                split: (arrays[images.format(split)], arrays[labels.format(split)])
                for split in ("train", "test", "val")
                for images, labels in _NPZ_WORDS
                if images.format(split) in arrays and labels.format(split) in arrays
            }
            names = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
            identity = repr(sorted((part.filename, part.CRC) for part in parts.infolist()))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz of plain arrays ({error}); save it with numpy.savez") from error
    if "train" not in found:
        raise ValueError(f"{path} lacks x_train and y_train (or train_images and train_labels); add them")
    splits = {split: _checked(split, *pair, f"{path} {split}") for split, pair in found.items()}
    classes = 1 + max(int(split.labels.max()) for split in splits.values())
    if not names and classes > max(FEW_CLASSES, sum(map(len, splits.values()))):
        raise ValueError(f"{path} has the label {classes - 1}, more than images; labels are numbers of classes, from 0")
    names = names or tuple(str(i) for i in range(classes))
    return Source(name=clean(path.stem), classes=names, splits=splits, identity=identity)


def _checked(split: str, images: np.ndarray, labels: np.ndarray, where: str) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise ValueError(
            f"{where}: images are {images.dtype} {images.shape}; uint8 (N, H, W) or (N, H, W, 3) are needed"
        )
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)) or not len(images):
        raise ValueError(f"{where}: labels are {labels.dtype} {labels.shape}, integers ({len(images)},) are needed")
    return numbered(split, labels.reshape(-1).astype(np.int64), images.__getitem__)
