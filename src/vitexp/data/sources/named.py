"""Sources by name: scikit-learn's digits, drawn sets, official files of well-known sets, the Hugging Face hub, a class
of the user's own."""

import gzip
import hashlib
import pickletools
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from vitexp.axes import PATH, is_path
from vitexp.data.read.fetch import fetch
from vitexp.data.shards.layout import spelled
from vitexp.data.sources import drawn, shapes
from vitexp.data.sources import source as source_files
from vitexp.data.sources.own_source import own_source
from vitexp.data.sources.source import TEST_FRACTION, Source, Split, clean, hold_out, numbered
from vitexp.own import Slot


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, which need no download; 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits

    table = load_digits()
    images = np.round(table.images * 255 / 16).astype(np.uint8)
    keys = [f"{i:04d}" for i in range(len(images))]
    whole = Split(keys=keys, labels=table.target.astype(np.int64), read=images.__getitem__)
    train, test = hold_out(whole, TEST_FRACTION)
    classes = tuple(str(name) for name in table.target_names)
    return Source(name="digits", classes=classes, splits={"train": train, "test": test})


NAMES: dict[str, Callable[[], Source]] = {
    "digits": digits,
    **{name: partial(drawn.drawn, name) for name in drawn.SETS},
    **{name: partial(shapes.shapes, name) for name in shapes.SETS},
}
"""Sources that need no files."""


def open_source(name: str, folder: Path | None = None, download: bool = False) -> Source:
    """The source behind a name, hf:NAME, or a path to a folder, a .tar or an .npz; a drawn set may have a size and a
    seed: drawn-digits@train=5000,test=20000,seed=1, and a class of the user's own its options: MODULE:NAME@images=50.

    `folder` is where the official files of a named set lie, or go with `download`.
    Raises: ValueError with the names there are, and for whatever is wrong with the files.
    """
    if name in OFFICIAL:
        return official(name, folder or Path("downloads") / name, download)
    if folder is not None or download:
        raise ValueError(f"--folder and --download have no effect on {name!r}, only on {', '.join(OFFICIAL)}")
    if name in NAMES:
        return NAMES[name]()
    base, sign, options = name.partition("@")
    if sign and base in drawn.SETS:
        return drawn.drawn(base, options)
    if name.startswith("hf:"):
        return hub(name.removeprefix("hf:"))
    return own_source(SLOT, name) if is_path(base) and not Path(name).exists() else _from_path(name)


def _from_path(name: str) -> Source:
    path = Path(name)
    if path.is_dir():
        tars = [inside for inside in path.iterdir() if inside.suffix.lower() == ".tar"]
        if len(tars) == 1 and not any(inside.is_dir() for inside in path.iterdir()):
            return source_files.tar(tars[0])  # a download, with its tar beside notes and checksums
        return source_files.folder(path)
    suffix = path.suffix.lower() if path.is_file() else ""
    if suffix in (".tar", ".npz"):
        return (source_files.npz if suffix == ".npz" else source_files.tar)(path)
    if suffix in (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip"):
        raise ValueError(f"{name} is compressed; unpack it and name the .tar or the folder")
    names = ", ".join([*NAMES, *OFFICIAL])
    raise ValueError(
        f"{name!r} is no source; give one of {names}, hf:NAME, a folder of class folders, a .tar, an .npz or {PATH}"
    )


def hub(name: str) -> Source:
    """A data set of the Hugging Face hub, which needs the optional package `datasets`.

    NAME, NAME@CONFIG, or the directory of a saved data set; images stay at their original bytes.

    Raises: ValueError when the package is absent, or the columns do not tell image from label.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("hf: needs the package datasets; install it with `pip install vitexp[hub]`") from error
    name, _, config = name.partition("@")
    loaded = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name, config or None)
    tables = loaded if isinstance(loaded, dict) else {"train": loaded}
    features = next(iter(tables.values())).features
    image = _column(name, features, datasets.Image, "image")
    label = _column(name, features, datasets.ClassLabel, "label")
    splits, notes = {}, []
    for split, table in tables.items():
        known = spelled(split)
        if known is None or min(table[label], default=-1) < 0:
            notes.append(f"split {split} left out: {'no labels' if known else 'unknown name'}")
            continue
        if known in splits:
            raise ValueError(f"{name} has two splits that would be {known}, one is {split}; save it with one of them")
        files = table.cast_column(image, datasets.Image(decode=False))
        splits[known] = numbered(known, np.array(table[label], np.int64), partial(_hub_bytes, files, image))
    identity = " ".join(sorted(f"{split} {table._fingerprint}" for split, table in tables.items()))
    classes = tuple(features[label].names)
    return Source(name=clean(Path(name).name), classes=classes, splits=splits, notes=notes, identity=identity)


def _column(name: str, features: Any, kind: type, usual: str) -> str:
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(found) > 1 and usual == "label" in found:
        return usual
    if len(found) != 1:
        raise ValueError(
            f"{name} has {usual} columns {found}, and one is needed (or a label named label): save it with the other "
            "columns removed and give its directory"
        )
    return found[0]


def _hub_bytes(table: Any, image: str, i: int) -> bytes:
    found = table[i][image]
    return found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()


class Official(NamedTuple):
    """A data set as its makers publish it: its forms, the one to download first, with the MD5 that they state."""

    url: str
    forms: dict[str, dict[str, str]]
    classes: tuple[str, ...] = ()
    """The names of the classes, where they do not lie in the files."""


def _idx(*sums: str) -> dict[str, dict[str, str]]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {"idx": {f"{name}-ubyte.gz": md5 for name, md5 in zip(names, sums, strict=True)}}


# cs.toronto.edu/~kriz/cifar.html, github.com/zalandoresearch/fashion-mnist, torchvision's tables for the single files.
OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz/",
        {
            "binary": {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            "python": {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
            "batches": {
                "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
                "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
                "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
                "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
        },
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz/",
        {
            "binary": {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
            "python": {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
            "batches": {
                "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
                "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
            },
        },
    ),
    "mnist": Official(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        tuple("0123456789"),
    ),
    "fashion-mnist": Official(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
SLOT = Slot("source", object, ("image",), words=(*NAMES, *OFFICIAL))


def official(name: str, folder: Path, download: bool) -> Source:
    """One of the data sets in OFFICIAL from its official files, which are used only if their checksum is right."""
    form, paths = official_files(name, folder, download)
    arrays, classes = read_idx(paths) if form == "idx" else read_cifar(form, paths, name == "cifar100")
    splits = {split: numbered(split, labels, images.__getitem__) for split, (images, labels) in arrays.items()}
    return Source(name=name, classes=OFFICIAL[name].classes or classes, splits=splits)


def official_files(name: str, folder: Path, download: bool) -> tuple[str, list[Path]]:
    """The form that lies in `folder`, and its files in the order of the table, checksums compared.

    Raises: ValueError naming what is missing, what has another checksum, or what could not be downloaded.
    """
    url, forms, _ = OFFICIAL[name]
    here = [form for form, sums in forms.items() if all((folder / file).is_file() for file in sums)]
    if not here and not download:
        choices = "; or ".join(", ".join(sums) for sums in forms.values())
        raise ValueError(f"{folder} lacks the official files of {name} ({choices}); name their --folder or --download")
    form = [*here, *forms][0]
    for file, md5 in forms[form].items():
        if not (folder / file).is_file():
            _download(url + file, folder / file, md5)
        with open(folder / file, "rb") as content:
            found = hashlib.file_digest(content, "md5").hexdigest()
        if found != md5:
            raise ValueError(f"{folder / file} has md5 {found}, the official file {md5}; it is not used: get it again")
    return form, [folder / file for file in forms[form]]


def _download(url: str, path: Path, md5: str) -> None:
    from rich.progress import DownloadColumn, TransferSpeedColumn

    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(path.name, None, DownloadColumn(), TransferSpeedColumn()) as report:
        try:
            fetch(url, path, md5, report=report)
        except ValueError as error:
            raise ValueError(f"{error}; or put {path} there by hand") from error


@contextmanager
def progress_bar(task: str, total: int | None, *columns: Any) -> Iterator[Callable[[int], None]]:
    """A bar of rich's `columns` on the terminal, nothing in a file; gives what to call with each piece of work done."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    description = TextColumn("{task.description}")
    with Progress(description, *columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        row = bar.add_task(task, total=total)
        yield lambda done: bar.advance(row, done)


Arrays = tuple[np.ndarray, np.ndarray]
Splits = dict[str, Arrays]


def read_idx(paths: list[Path]) -> tuple[Splits, tuple[str, ...]]:
    """Both splits from the four files of MNIST and its kin, which name no classes.

    Shapes: images uint8 (N, H, W), labels int64 (N,).
    """
    train_x, train_y, test_x, test_y = (_idx_array(path) for path in paths)
    return {"train": (train_x, train_y.astype(np.int64)), "test": (test_x, test_y.astype(np.int64))}, ()


def _idx_array(path: Path) -> np.ndarray:
    """An array of bytes: two zeros, 8 for uint8, the number of dimensions, each as a big-endian word, the values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no idx file of bytes; get it again")
    shape = np.frombuffer(data, ">u4", data[3], 4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


PIXELS = 3 * 32 * 32
_FINE = {"labels": "labels", "fine_labels": "labels", "label_names": "names", "fine_label_names": "names"}
_OTHERS = {"filenames", "batch_label", "coarse_labels", "coarse_label_names", "num_vis", "num_cases_per_batch"}


def read_cifar(form: str, paths: list[Path], hundred: bool) -> tuple[Splits, tuple[str, ...]]:
    """Both splits and the names of the classes from the official files of one form.

    Shapes: images uint8 (N, 32, 32, 3), labels int64 (N,).
    """
    if form == "batches":
        files = {path.name: path.read_bytes() for path in paths}
    else:
        with tarfile.open(paths[0]) as tar:
            files = {PurePosixPath(m.name).name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]
    splits = {}
    for split, starts in (("train", ("data_batch", "train")), ("test", ("test",))):
        batches = [files[name] for name in sorted(files) if name.startswith(starts)]
        parts = [_binary(data, hundred) if form == "binary" else _pickled(data) for data in batches]
        planes, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        splits[split] = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    return splits, _class_names(files)


def _binary(data: bytes, hundred: bool) -> Arrays:
    """Records of label and planes; with 100 classes a coarse label comes first."""
    head = 2 if hundred else 1
    records = np.frombuffer(data, np.uint8).reshape(-1, head + PIXELS)
    return records[:, head:], records[:, head - 1].astype(np.int64)


def _pickled(data: bytes) -> Arrays:
    """Raises: ValueError when the instructions do not hold as many labels as images."""
    labels, pixels = [], b""
    for kind, argument in _arguments(data):
        if kind == "data" and isinstance(argument, str) and len(argument) >= PIXELS:
            pixels = argument.encode("latin-1")
        elif kind == "labels" and isinstance(argument, int):
            labels.append(argument)
    if len(pixels) != len(labels) * PIXELS or not labels:
        raise ValueError(f"a CIFAR batch holds {len(labels)} labels and {len(pixels)} bytes of pixels; get it again")
    return np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS), np.array(labels, np.int64)


def _class_names(files: dict[str, bytes]) -> tuple[str, ...]:
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if name in files:
            return tuple(files[name].decode("ascii").split())
    meta = _arguments(files["batches.meta" if "batches.meta" in files else "meta"])
    return tuple(argument for kind, argument in meta if kind == "names" and isinstance(argument, str))


def _arguments(data: bytes) -> Iterator[tuple[str, str | int]]:
    """The strings and small numbers in a pickle, each with what the dictionary key says that it follows.

    A pickle is a program. Its instructions are only listed here, never run: what we need of them are a long string (the
    pixels), a list of small numbers (the labels), and a list of names.
    """
    kind = ""
    for operation, argument, _ in pickletools.genops(data):
        if isinstance(argument, str) and argument in {"data", *_FINE, *_OTHERS}:
            kind = _FINE.get(argument, argument)
        elif operation.name in ("BINSTRING", "SHORT_BINSTRING", "BININT1") and isinstance(argument, str | int):
            yield kind, argument
