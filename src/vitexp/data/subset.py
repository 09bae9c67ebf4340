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


def stratified_order(labels: np.ndarray, keys: np.ndarray, salt: int) -> np.ndarray:
    """A permutation of the images, each prefix of which is stratified; depends on keys and labels, not on places."""
    hashes = draw(salt, keys)
    by_class = np.lexsort((hashes, labels))
    counts = np.unique(labels, return_counts=True)[1]
    sizes = np.repeat(counts, counts)
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.where(ranks == 0, -1.0, (2 * ranks + 1) / (2 * sizes))
    return by_class[np.lexsort((hashes[by_class], share))]


def hold_out(labels: np.ndarray, keys: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows kept for training and those held out, each ascending.

    The slice depends on the data set and `fraction` alone, never on a seed: all runs of a study are measured with it.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"data.val_fraction is {fraction}; it must be at least 0 and less than 1")
    order = stratified_order(labels, keys, key(_HOLD_OUT))
    kept = len(labels) - round(fraction * len(labels))
    return np.sort(order[:kept]), np.sort(order[kept:])


def choose(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray, images: int, seed: int) -> np.ndarray:
    """`images` of `rows`, ascending; for fewer images a subset of those for more.

    Raises: ValueError for more images than there are, or fewer than classes.
    """
    classes = len(np.unique(labels[rows]))
    if images > len(rows):
        raise ValueError(
            f"data.train_images is {images}, but there are {len(rows)} images to train on beside the validation slice"
        )
    if images < classes:
        raise ValueError(
            f"a training subset of {images} images cannot hold all {classes} classes; ask for at least {classes}"
        )
    if images == len(rows):
        return rows
    return np.sort(rows[stratified_order(labels[rows], keys[rows], key(_SUBSET, seed))[:images]])


def fingerprint(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> str:
    """16 hexadecimal digits of which images with which labels, however they are sharded."""
    chosen = np.empty(len(rows), dtype=[("key", "<u8"), ("label", "<i4")])
    chosen["key"], chosen["label"] = keys[rows], labels[rows]
    return hashlib.sha256(np.sort(chosen, order="key").tobytes()).hexdigest()[:16]
