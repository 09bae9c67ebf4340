"""A data set of the Hugging Face hub, or one saved by its library; needs the optional package `datasets`."""

from pathlib import Path
from typing import Any

import numpy as np

from vitexp.data.shards.splits import spelled
from vitexp.data.sources.files import clean
from vitexp.data.sources.named import Source, Split


def hub(name: str) -> Source:
    """NAME, NAME@CONFIG, or the directory of a saved data set; images stay at their original bytes.

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
    image, label = _columns(next(iter(tables.values())).features, name, datasets)
    for split, table in tables.items():
        word = spelled(split)
        if word is None or min(table[label], default=-1) < 0:
            notes.append(f"split {split} left out: {'no labels' if word else 'unknown name'}")
            continue
        if word in splits:
            raise ValueError(f"{name} has two splits that would be {word}, one is {split}; save it with one of them")
        splits[word] = _split(word, table.cast_column(image, datasets.Image(decode=False)), image, label)
    classes = tuple(next(iter(tables.values())).features[label].names)
    identity = " ".join(sorted(f"{split} {table._fingerprint}" for split, table in tables.items()))
    return Source(name=clean(Path(name).name), classes=classes, splits=splits, notes=notes, identity=identity)


def _columns(features: Any, name: str, datasets: Any) -> tuple[str, str]:
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = ["label"] if "label" in labels else labels
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"{name} has image columns {images} and label columns {labels}; one of each is needed (or a label named "
            "label): save it with other columns removed and give its directory"
        )
    return images[0], labels[0]


def _split(split: str, table: Any, image: str, label: str) -> Split:
    def read(i: int) -> bytes:
        found = table[i][image]
        return found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()

    keys = [f"{split}-{i:0{len(str(len(table) - 1))}d}" for i in range(len(table))]
    return Split(keys=keys, labels=np.array(table[label], np.int64), read=read)
