"""Named data sets as tables: so many images, the class of each, and its bytes or its pixels on demand.

Nothing is decoded or held here: a split answers for any one of its images, in any order and from any thread.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Content = bytes | np.ndarray
FEW_CLASSES = 1000  # a set without class names may have this many classes, also with fewer images
TEST_FRACTION = 0.2  # of a source that comes without a test set


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


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, which need no download; 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits

    table = load_digits()
    images = np.round(table.images * 255 / 16).astype(np.uint8)
    keys = [f"{i:04d}" for i in range(len(images))]
    whole = Split(keys=keys, labels=table.target.astype(np.int64), read=lambda i: images[i])
    train, test = hold_out(whole, TEST_FRACTION)
    classes = tuple(str(name) for name in table.target_names)
    return Source(name="digits", classes=classes, splits={"train": train, "test": test})


def hold_out(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split]:
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
            raise ValueError(f"class {label} has one image: nothing can be held out; add images or remove the class")
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        held[rows[np.argsort(rank[rows], kind="stable")[:count]]] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def digest(key: str, seed: int) -> int:
    """A number in 0..2^63 that depends on the key and the seed alone, never on the images around it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()) >> 1


def _published(name: str) -> Callable[[Path, bool], Source]:
    def read(folder: Path, download: bool) -> Source:
        from vitexp.data.sources.official import published

        return published(name, folder, download)

    return read


NAMES: dict[str, Callable[[], Source]] = {"digits": digits}
"""Words that need no files."""
PUBLISHED = {name: _published(name) for name in ("cifar10", "cifar100", "mnist", "fashion-mnist")}
"""Words that need their official files."""


def open_source(name: str, folder: Path | None = None, download: bool = False) -> Source:
    """The source behind a word, hf:NAME, or a path to a folder, a .tar or an .npz.

    `folder` is where the official files of a word lie, or go with `download`.
    Raises: ValueError with the words there are, and for whatever is wrong with the files.
    """
    if name in PUBLISHED:
        return PUBLISHED[name](folder or Path("downloads") / name, download)
    if folder is not None or download:
        raise ValueError(f"--folder and --download have no effect on {name!r}, only on {', '.join(PUBLISHED)}")
    if name in NAMES:
        return NAMES[name]()
    if name.startswith("hf:"):
        from vitexp.data.sources.hub import hub

        return hub(name.removeprefix("hf:"))
    return _from_path(name)


def _from_path(name: str) -> Source:
    from vitexp.data.sources import files as source_files

    path = Path(name)
    if path.is_dir():
        tars = [inside for inside in path.iterdir() if inside.suffix.lower() == ".tar"]
        if len(tars) == 1 and not any(inside.is_dir() for inside in path.iterdir()):
            return source_files.tar(tars[0])  # a download, with its tar beside notes and checksums
        return source_files.folder(path)
    if path.is_file() and path.suffix.lower() in (".tar", ".npz"):
        return source_files.npz(path) if path.suffix.lower() == ".npz" else source_files.tar(path)
    if path.is_file() and path.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip"):
        raise ValueError(f"{name} is compressed; unpack it and name the .tar or the folder")
    words = ", ".join([*NAMES, *PUBLISHED])
    raise ValueError(
        f"{name!r} is no source; give one of {words}, hf:NAME, a folder of class folders, a .tar or an .npz"
    )
