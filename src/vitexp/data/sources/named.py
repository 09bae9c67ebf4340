"""From what a user writes to a source: the name of a data set, hf:NAME, a folder, a .tar or an .npz."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vitexp.data.shards.layout import spelled
from vitexp.data.sources import files as source_files
from vitexp.data.sources.files import clean
from vitexp.data.sources.official import FORMS, published
from vitexp.data.sources.source import TEST_FRACTION, Source, Split, hold_out


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


NAMES: dict[str, Callable[[], Source]] = {"digits": digits}
"""Sources that need no files."""


def open_source(name: str, folder: Path | None = None, download: bool = False) -> Source:
    """The source behind a name, hf:NAME, or a path to a folder, a .tar or an .npz.

    `folder` is where the official files of a named set lie, or go with `download`.
    Raises: ValueError with the names there are, and for whatever is wrong with the files.
    """
    if name in FORMS:
        return published(name, folder or Path("downloads") / name, download)
    if folder is not None or download:
        raise ValueError(f"--folder and --download have no effect on {name!r}, only on {', '.join(FORMS)}")
    if name in NAMES:
        return NAMES[name]()
    if name.startswith("hf:"):
        return hub(name.removeprefix("hf:"))
    return _from_path(name)


def _from_path(name: str) -> Source:
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
    names = ", ".join([*NAMES, *FORMS])
    raise ValueError(
        f"{name!r} is no source; give one of {names}, hf:NAME, a folder of class folders, a .tar or an .npz"
    )


def hub(name: str) -> Source:
    """A data set of the Hugging Face hub, which needs the optional package `datasets`.

    NAME, NAME@CONFIG, or the directory of a saved data set; images stay at their original bytes.

    Raises: ValueError when the package is absent, or the columns do not say what is image and what is label.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("hf: needs the package datasets; install it with `pip install vitexp[hub]`") from error
    name, _, config = name.partition("@")
    loaded = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name, config or None)
    tables = loaded if isinstance(loaded, dict) else {"train": loaded}
    splits, notes = {}, []
    image, label = _hub_columns(next(iter(tables.values())).features, name, datasets)
    for split, table in tables.items():
        word = spelled(split)
        if word is None or min(table[label], default=-1) < 0:
            notes.append(f"split {split} left out: {'no labels' if word else 'unknown name'}")
            continue
        if word in splits:
            raise ValueError(f"{name} has two splits that would be {word}, one is {split}; save it with one of them")
        splits[word] = _hub_split(word, table.cast_column(image, datasets.Image(decode=False)), image, label)
    classes = tuple(next(iter(tables.values())).features[label].names)
    identity = " ".join(sorted(f"{split} {table._fingerprint}" for split, table in tables.items()))
    return Source(name=clean(Path(name).name), classes=classes, splits=splits, notes=notes, identity=identity)


def _hub_columns(features: Any, name: str, datasets: Any) -> tuple[str, str]:
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = ["label"] if "label" in labels else labels
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"{name} has image columns {images} and label columns {labels}; one of each is needed (or a label named "
            "label): save it with other columns removed and give its directory"
        )
    return images[0], labels[0]


def _hub_split(split: str, table: Any, image: str, label: str) -> Split:
    def read(i: int) -> bytes:
        found = table[i][image]
        return found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()

    keys = [f"{split}-{i:0{len(str(len(table) - 1))}d}" for i in range(len(table))]
    return Split(keys=keys, labels=np.array(table[label], np.int64), read=read)
