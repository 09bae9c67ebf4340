"""The official files of CIFAR and MNIST as arrays, CIFAR's pickles without unpickling.

A pickle is a program. Its instructions are only listed here, never run: what we need of them are a long string (the
pixels), a list of small numbers (the labels), and a list of names.
"""

import gzip
import pickletools
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

PIXELS = 3 * 32 * 32
Arrays = tuple[np.ndarray, np.ndarray]
_LABELS = {"labels", "fine_labels"}
_NAMES = {"label_names", "fine_label_names"}
_OTHERS = {"data", "filenames", "batch_label", "coarse_labels", "coarse_label_names", "num_vis", "num_cases_per_batch"}
_KEYS = _LABELS | _NAMES | _OTHERS


def read_cifar(form: str, paths: list[Path], classes: int) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """Both splits and the names of the classes from the official files of one form.

    Shapes: images uint8 (N, 32, 32, 3), labels int64 (N,).
    """
    files = _members(paths[0]) if form in ("binary", "python") else {path.name: path.read_bytes() for path in paths}
    read = _binary if form == "binary" else _pickled
    splits: dict[str, list[Arrays]] = {"train": [], "test": []}
    for name in sorted(files):
        if name.startswith(("data_batch", "train")):
            splits["train"].append(read(files[name], classes))
        elif name.startswith("test"):
            splits["test"].append(read(files[name], classes))
    whole = {split: _joined(parts) for split, parts in splits.items()}
    return whole, _class_names(files)


def _members(path: Path) -> dict[str, bytes]:
    """The regular members of an archive by their last name."""
    with tarfile.open(path) as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                found[PurePosixPath(member.name).name] = content.read()
    return found


def _joined(parts: Iterable[Arrays]) -> Arrays:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _images(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _binary(data: bytes, classes: int) -> Arrays:
    """Records of label and planes; with 100 classes a coarse label comes first."""
    head = 2 if classes == 100 else 1
    records = np.frombuffer(data, np.uint8).reshape(-1, head + PIXELS)
    return _images(records[:, head:]), records[:, head - 1].astype(np.int64)


def _pickled(data: bytes, classes: int) -> Arrays:
    """Raises: ValueError when the instructions do not hold as many labels as images."""
    labels, pixels = [], b""
    for key, argument in _arguments(data):
        if key == "data" and isinstance(argument, str) and len(argument) >= PIXELS:
            pixels = argument.encode("latin-1")
        elif key in _LABELS and isinstance(argument, int):
            labels.append(argument)
    if len(pixels) != len(labels) * PIXELS or not labels:
        raise ValueError(f"a CIFAR batch holds {len(labels)} labels and {len(pixels)} bytes of pixels; get it again")
    return _images(np.frombuffer(pixels, np.uint8)), np.array(labels, np.int64)


def _class_names(files: dict[str, bytes]) -> tuple[str, ...]:
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if name in files:
            return tuple(files[name].decode("ascii").split())
    meta = _arguments(files["batches.meta" if "batches.meta" in files else "meta"])
    return tuple(argument for key, argument in meta if key in _NAMES and isinstance(argument, str))


def _arguments(data: bytes) -> Iterator[tuple[str, str | int]]:
    """The strings and small numbers in a pickle, each with the dictionary key that it follows."""
    key = ""
    for operation, argument, _ in pickletools.genops(data):
        if isinstance(argument, str) and argument in _KEYS:
            key = argument
        elif operation.name in ("BINSTRING", "SHORT_BINSTRING", "BININT1") and isinstance(argument, str | int):
            yield key, argument


def read_idx(paths: list[Path]) -> dict[str, Arrays]:
    """Both splits from the four files of MNIST and its kin.

    Shapes: images uint8 (N, H, W), labels int64 (N,).
    """
    train_x, train_y, test_x, test_y = (_idx(path) for path in paths)
    return {"train": (train_x, train_y.astype(np.int64)), "test": (test_x, test_y.astype(np.int64))}


def _idx(path: Path) -> np.ndarray:
    """An array of bytes: two zeros, 8 for uint8, the number of dimensions, each as a big-endian word, the values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no idx file of bytes; get it again")
    shape = np.frombuffer(data, ">u4", data[3], 4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
