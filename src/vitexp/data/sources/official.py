"""The official files of well-known data sets, found in a folder or downloaded, used only if their checksum is right."""

import gzip
import hashlib
import pickletools
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from vitexp.data.read.fetch import fetch
from vitexp.data.sources.files import array_split
from vitexp.data.sources.source import Source, progress_bar

# The official files of CIFAR and MNIST as arrays, CIFAR's pickles without unpickling.
# A pickle is a program. Its instructions are only listed here, never run: what we need of them are a long string (the
# pixels), a list of small numbers (the labels), and a list of names.

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
    train_x, train_y, test_x, test_y = (_idx_array(path) for path in paths)
    return {"train": (train_x, train_y.astype(np.int64)), "test": (test_x, test_y.astype(np.int64))}


def _idx_array(path: Path) -> np.ndarray:
    """An array of bytes: two zeros, 8 for uint8, the number of dimensions, each as a big-endian word, the values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no idx file of bytes; get it again")
    shape = np.frombuffer(data, ">u4", data[3], 4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


class OfficialFile(NamedTuple):
    """A file as its makers published it."""

    name: str
    md5: str
    url: str = ""


def _files(base: str, sums: dict[str, str]) -> tuple[OfficialFile, ...]:
    """Files by their names, with the MD5 of each, below `base`, which is empty for those that are not downloaded."""
    return tuple(OfficialFile(name, md5, base and base + name) for name, md5 in sums.items())


def _idx(base: str, *sums: str) -> dict[str, tuple[OfficialFile, ...]]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {"idx": _files(base, {f"{name}-ubyte.gz": md5 for name, md5 in zip(names, sums, strict=True)})}


_TORONTO = "https://www.cs.toronto.edu/~kriz/"

# For each data set the forms it is published in, the one to download first. Checksums as their makers state them:
# cs.toronto.edu/~kriz/cifar.html, github.com/zalandoresearch/fashion-mnist, torchvision's tables for the single files.
FORMS: dict[str, dict[str, tuple[OfficialFile, ...]]] = {
    "cifar10": {
        "binary": _files(_TORONTO, {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}),
        "python": _files("", {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}),
        "batches": _files(
            "",
            {
                "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
                "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
                "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
                "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
        ),
    },
    "cifar100": {
        "binary": _files(_TORONTO, {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"}),
        "python": _files("", {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}),
        "batches": _files(
            "",
            {
                "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
                "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
            },
        ),
    },
    "mnist": _idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
}


def official_files(name: str, folder: Path, download: bool) -> tuple[str, list[Path]]:
    """The form that lies in `folder`, and its files in the order of the table, checksums compared.

    Raises: ValueError naming what is missing, what has another checksum, or what could not be downloaded.
    """
    forms = FORMS[name]
    for form, files in forms.items():
        if all((folder / file.name).is_file() for file in files):
            return form, [_checked(folder / file.name, file) for file in files]
    form, files = next(iter(forms.items()))
    if not download:
        choices = "; or ".join(", ".join(file.name for file in files) for files in forms.values())
        raise ValueError(f"{folder} lacks the official files of {name} ({choices}); name their --folder or --download")
    return form, [_downloaded(file, folder) for file in files]


def _checked(path: Path, file: OfficialFile) -> Path:
    with open(path, "rb") as content:
        found = hashlib.file_digest(content, "md5").hexdigest()
    if found != file.md5:
        raise ValueError(f"{path} has md5 {found}, the official file {file.md5}; it is not used: get it again")
    return path


def _downloaded(file: OfficialFile, folder: Path) -> Path:
    """The file in its place, fetched if it is not there."""
    path = folder / file.name
    if path.is_file():
        return _checked(path, file)
    from rich.progress import DownloadColumn, TransferSpeedColumn

    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar(file.name, None, DownloadColumn(), TransferSpeedColumn()) as report:
        try:
            fetch(file.url, path, file.md5, report=report)
        except ValueError as error:
            raise ValueError(f"{error}; or put {path} there by hand") from error
    return path


_MNIST = tuple("0123456789")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def published(name: str, folder: Path, download: bool) -> Source:
    """One of the data sets in FORMS from its official files."""
    form, paths = official_files(name, folder, download)
    if form == "idx":
        arrays = read_idx(paths)
        classes = _FASHION if name == "fashion-mnist" else _MNIST
    else:
        arrays, classes = read_cifar(form, paths, 100 if name == "cifar100" else 10)
    return Source(name=name, classes=classes, splits={word: array_split(word, *pair) for word, pair in arrays.items()})
