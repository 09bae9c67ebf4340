"""What a set gives, in a line, and what is odd about its classes, in notes: both by the images that will be used."""

from collections.abc import Mapping, Sequence

import numpy as np

_SHOWN = 5


def counts_line(name: str, parts: Sequence[str], classes: int) -> str:
    """As in `data: digits: 1,294 train + 144 val (held out of train) + 359 test images, 10 classes`."""
    return f"data: {name}: {' + '.join(parts)} images, {classes:,} {'class' if classes == 1 else 'classes'}"


def class_notes(names: Sequence[str], counts: Mapping[str, np.ndarray]) -> list[str]:
    """What a reader of the numbers should know about the classes of a set.

    Args:
        names: Of all classes.
        counts: Images of each class by split, `train` among them; splits without images left out.
    """
    train, whole = counts["train"], sum(counts.values())
    notes = []
    if empty := np.flatnonzero(whole == 0).tolist():
        hint = "; do the labels count from 1?" if empty == [0] else ""
        notes.append(f"{_classes(names, empty)} no image in any split{hint}")
    if (train > 0).sum() == 1:
        notes.append(f"every training image is of one class, {names[int(train.argmax())]}")
    elif train.max() == 1:
        notes.append("every class has a single training image; are the labels numbers of images, not of classes?")
    for split in [split for split in counts if split != "train"]:
        if unseen := np.flatnonzero((train == 0) & (counts[split] > 0)).tolist():
            images = int(counts[split][unseen].sum())
            notes.append(f"{_classes(names, unseen)} no training image, but {images:,} in {split}: never right there")
        if absent := np.flatnonzero((train > 0) & (counts[split] == 0)).tolist():
            notes.append(f"{_classes(names, absent)} no image in {split}, which says nothing about them")
    return notes


def _classes(names: Sequence[str], which: Sequence[int]) -> str:
    shown = ", ".join(names[i] for i in which[:_SHOWN]) + (", ..." if len(which) > _SHOWN else "")
    return f"{len(which):,} of {len(names):,} classes ({shown}) {'has' if len(which) == 1 else 'have'}"
