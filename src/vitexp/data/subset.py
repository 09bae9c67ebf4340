"""Which images are trained on: nested, class-stratified subsets, and a validation slice held out of train.

Both come from one order of the images, of which a subset is a prefix, so that every smaller subset lies inside every
larger one. The images of each class are ranked by a seeded hash of their keys; all are then sorted by (rank + 1/2) /
(images in the class). A prefix of this order apportions its places to the classes by Webster's method: each class
within a place of its share, also where one has 1000 times the images of another. (The method of largest remainders is
closer still to the shares, but it can take a place away when the total grows, the Alabama paradox, and so cannot be
nested.) The first of each class come before all others: a subset of at least as many images as classes holds every
class.

Source: Balinski and Young, "Fair Representation", 1982 (Webster's method is house-monotone; largest remainders are
not).
"""

import hashlib

import numpy as np

from vitexp.data.keyed import draw, key

_HOLD_OUT, _SUBSET = 1, 2
_CHUNK = 1 << 20


def stratified_prefix(labels: np.ndarray, keys: np.ndarray, salt: int, images: int) -> np.ndarray:
    """The first `images` rows of the stratified order, ascending; depends on keys and labels, not on places.

    The order itself is never made: the share that the last of the prefix has is found, and with it all that come
    before.
    """
    by_class = np.argsort(_class_and_hash(labels, keys, salt), kind="stable")
    counts = np.bincount(labels)
    shares, start = np.empty(len(labels)), 0
    for count in counts[counts > 0].tolist():
        shares[start : start + count] = np.arange(1, 2 * count, 2) / (2 * count)
        shares[start] = -1.0
        start += count
    last = np.partition(shares, images - 1)[images - 1] if images else -np.inf
    surely, perhaps = by_class[shares < last], by_class[shares == last]
    ties = np.argsort(draw(salt, keys[perhaps]), kind="stable")[: images - len(surely)]
    return np.sort(np.concatenate([surely, perhaps[ties]]))


def _class_and_hash(labels: np.ndarray, keys: np.ndarray, salt: int) -> np.ndarray:
    """One number that sorts by class, and within it by the seeded hash of the key: by its upper 33 bits at least."""
    bits = np.uint64(int(labels.max(initial=0)).bit_length())
    words = np.empty(len(labels), np.uint64)
    for start in range(0, len(labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        words[part] = draw(salt, keys[part]) >> bits
        words[part] |= labels[part].astype(np.uint64) << (np.uint64(64) - bits) if bits else 0
    return words


def hold_out(labels: np.ndarray, keys: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows kept for training and those held out, each ascending.

    The slice depends on the data set and `fraction` alone, never on a seed: all runs of a study are measured with it.
    """
    held = np.ones(len(labels), bool)
    kept = stratified_prefix(labels, keys, key(_HOLD_OUT), len(labels) - held_out(len(labels), fraction))
    held[kept] = False
    return kept, np.flatnonzero(held)


def held_out(images: int, fraction: float) -> int:
    """How many of `images` are held out."""
    if not 0 <= fraction < 1:
        raise ValueError(f"data.val_fraction is {fraction}; it must be at least 0 and less than 1")
    return round(fraction * images)


def choose(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray, images: int, seed: int) -> np.ndarray:
    """`images` of `rows`, ascending; for fewer images a subset of those for more.

    Raises: ValueError for more images than there are, or fewer than classes.
    """
    check_subset(images, len(rows), len(np.unique(labels[rows])))
    if images == len(rows):
        return rows
    return rows[stratified_prefix(labels[rows], keys[rows], key(_SUBSET, seed), images)]


def check_subset(images: int, available: int, classes: int) -> None:
    """Raises: ValueError for more images than there are, or fewer than classes."""
    if images > available:
        raise ValueError(
            f"data.train_images is {images}, but there are {available} images to train on beside the validation slice"
        )
    if images < classes:
        raise ValueError(
            f"a training subset of {images} images cannot hold all {classes} classes; ask for at least {classes}"
        )


def fingerprint(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> str:
    """16 hexadecimal digits of which images with which labels, however they are sharded."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    whole = hashlib.sha256()
    for column, kind in ((keys, "<u8"), (labels, "<i4")):
        for start in range(0, len(order), _CHUNK):
            whole.update(column[order[start : start + _CHUNK]].astype(kind).tobytes())
    return whole.hexdigest()[:16]
