"""Sources that a user brings: a folder or a tar of class folders, or an .npz of arrays."""

import hashlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vitexp.data.read.decode import EXTENSIONS, OTHER_IMAGES
from vitexp.data.shards.layout import FEW_CLASSES, SPLITS, files_below, hidden, read_names, spelled
from vitexp.data.shards.scan import plain_members
from vitexp.data.sources.source import Source, Split

_NPZ_WORDS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
KEY_CHARACTERS = 80
_PLAIN = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*\.\w+")  # a - inside a part would make joining by - ambiguous


def folder(path: Path) -> Source:
    """Images at their own bytes, by the folder of their class: CLASS/..., or train/CLASS/..., test/CLASS/..."""
    sizes = dict(files_below(path))
    source = _class_folders(path.resolve().name, str(path), sizes, lambda name: (path / name).read_bytes())
    empty = _without_images(path, sizes)
    return replace(source, notes=[*source.notes, f"folders without an image left out: {empty}"]) if empty else source


def _without_images(path: Path, names: Iterable[str]) -> str:
    """The folders beside others of their kind that hold no image below them, a few by name."""
    images = {name.rpartition("/")[0] for name in names if _is_image(name)}
    full = {PurePosixPath(folder) for folder in images}
    full |= {parent for folder in full for parent in folder.parents}
    empty = sorted(
        inside.relative_to(path).as_posix()
        for folder in {folder.parent for folder in full}
        for inside in (path / folder).iterdir()
        if inside.is_dir() and not hidden(inside.name) and PurePosixPath(inside.relative_to(path)) not in full
    )
    return ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")


def _is_image(name: str) -> bool:
    """By its name; those of kinds that are not read too: they are refused one by one, never left out."""
    return name.rpartition(".")[2].lower() in (*EXTENSIONS, *OTHER_IMAGES)


def tar(path: Path) -> Source:
    """The same from an uncompressed tar, which is read in place."""
    places = _places(path)
    handle = os.open(path, os.O_RDONLY)

    def read(name: str) -> bytes:
        start, size = places[name]
        return os.pread(handle, size, start)

    return _class_folders(path.name.partition(".")[0], str(path), {n: size for n, (_, size) in places.items()}, read)


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Where in a tar each file lies. Raises: ValueError for a link, and for whatever would be left out."""
    with open(path, "rb") as file:
        members = plain_members(file, str(path))
        return {member.name.removeprefix("./"): (member.offset_data, member.size) for member in members}


def _class_folders(name: str, where: str, sizes: dict[str, int], read: Callable[[str], bytes]) -> Source:
    images, others = _sorted_out(sizes)
    parts = _without_common_folder({image: PurePosixPath(image).parts for image in images})
    by_split = any(spelled(way[0]) for way in parts.values())
    if not by_split:
        _refuse_unclear(where, parts)
    keys = dict(zip(images, keys_of(["/".join(parts[image]) for image in images]), strict=True))
    rows: dict[str, list[tuple[str, str, str]]] = {}
    spellings: dict[str, str] = {}
    for image in images:
        way = parts[image]
        split = spelled(way[0]) if by_split else "train"
        if split is None:
            raise ValueError(
                f"{where}: {image} lies beside the splits {', '.join(sorted(spellings) or SPLITS)}; move it into one "
                "of them (or, if those are classes too, move all of them into a folder train)"
            )
        if by_split and spellings.setdefault(split, way[0]) != way[0]:
            raise ValueError(f"{where}: {spellings[split]} and {way[0]} would both be {split}; rename or remove one")
        way = way[1:] if by_split else way
        if len(way) < 2:
            raise ValueError(f"{where}: {image} lies in no class folder; put it into one")
        rows.setdefault(split, []).append((image, keys[image], way[0]))
    if "train" not in rows:
        if any(name.lower().endswith(".tar") for name in sizes):
            raise ValueError(f"{where} holds tars and no class folders: shards need no making, `vitexp shards info` it")
        raise ValueError(
            f"{where} holds no training image ({', '.join(EXTENSIONS)}) in a class folder"
            + (f", only those of {', '.join(rows)}" if rows else "")
        )
    classes = tuple(sorted({label for *_, label in rows["train"]}))
    splits = {split: _split(split, found, classes, where, read) for split, found in rows.items()}
    identity = hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()
    most = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    notes = [f"{sum(others.values())} files of other kinds left out ({most})"] if others else []
    return Source(name=clean(name), classes=classes, splits=splits, notes=notes, identity=identity)


def _refuse_unclear(where: str, parts: dict[str, tuple[str, ...]]) -> None:
    """Raises: ValueError for folders such as my_train/CLASS and my_test/CLASS, which may be splits or classes."""
    if not all(len(way) > 2 for way in parts.values()):
        return
    tops = sorted({way[0] for way in parts.values()})
    try:
        found = {top: placed.split for top, placed in zip(tops, read_names(tops), strict=True)}
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if named := [top for top in tops if found[top]]:
        raise ValueError(f"{where}: {', '.join(named)} may be splits or classes; rename them {', '.join(SPLITS)}")


def _split(
    split: str, found: list[tuple[str, str, str]], classes: tuple[str, ...], where: str, read: Callable[[str], bytes]
) -> Split:
    number = {label: i for i, label in enumerate(classes)}
    strange = sorted({label for *_, label in found if label not in number})
    if strange:
        raise ValueError(
            f"{where}: {split} has classes that train lacks ({', '.join(strange[:5])}); add or remove them"
        )
    names = [image for image, *_ in found]
    labels = np.array([number[label] for *_, label in found], np.int64)
    return Split(keys=[key for _, key, _ in found], labels=labels, read=lambda i: read(names[i]))


def _sorted_out(names: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The images in the order of their names, and the extensions of all else, but for hidden files."""
    images, others = [], Counter[str]()
    for name in sorted(names):
        way = PurePosixPath(name)
        if any(hidden(part) for part in way.parts):
            continue
        if _is_image(name):
            images.append(name)
        else:
            others[way.suffix or way.name] += 1
    return images, others


def _without_common_folder(parts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leaves out folders that all images share and that are neither split nor class."""
    while parts and all(len(way) > 2 for way in parts.values()):
        first = {way[0] for way in parts.values()}
        if len(first) > 1 or all(map(spelled, first)):
            break
        parts = {image: way[1:] for image, way in parts.items()}
    return parts


def keys_of(names: list[str]) -> list[str]:
    """A key for each path: its parts where that is plain and unique, else with a hash of the whole path."""
    plain = ["-".join(PurePosixPath(name).with_suffix("").parts) for name in names]
    count = Counter(plain)
    return [
        key if count[key] == 1 and len(key) <= KEY_CHARACTERS and _PLAIN.fullmatch(name) else _hashed(key, name)
        for key, name in zip(plain, names, strict=True)
    ]


def _hashed(key: str, name: str) -> str:
    return f"{clean(key)[: KEY_CHARACTERS - 11]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def clean(text: str) -> str:
    """Any other character than letters, digits, - and _ becomes _."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text) or "_"


def npz(path: Path) -> Source:
    """Arrays x_train, y_train, x_test, y_test (or train_images, train_labels, ...), and perhaps `classes`.

    Shapes: images uint8 (N, H, W) or (N, H, W, 3), labels integers (N,) or (N, 1), classes strings (C,).
    """
    try:
        with np.load(path, allow_pickle=False) as arrays, zipfile.ZipFile(path) as parts:
            found = {split: pair for split in ("train", "test", "val") if (pair := _pair(arrays, split)) is not None}
            names = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
            identity = repr(sorted((part.filename, part.CRC) for part in parts.infolist()))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz of plain arrays ({error}); save it with numpy.savez") from error
    if "train" not in found:
        raise ValueError(f"{path} lacks x_train and y_train (or train_images and train_labels); add them")
    splits = {split: _array_split(split, *pair, str(path)) for split, pair in found.items()}
    classes = 1 + max(int(split.labels.max()) for split in splits.values())
    if not names and classes > max(FEW_CLASSES, sum(map(len, splits.values()))):
        raise ValueError(f"{path} has the label {classes - 1}, more than images; labels are numbers of classes, from 0")
    names = names or tuple(str(i) for i in range(classes))
    return Source(name=clean(path.stem), classes=names, splits=splits, identity=identity)


def _pair(arrays: "np.lib.npyio.NpzFile", split: str) -> tuple[np.ndarray, np.ndarray] | None:
    for images, labels in _NPZ_WORDS:
        if images.format(split) in arrays and labels.format(split) in arrays:
            return arrays[images.format(split)], arrays[labels.format(split)]
    return None


def _array_split(split: str, images: np.ndarray, labels: np.ndarray, where: str) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise ValueError(
            f"{where} {split}: images are {images.dtype} {images.shape}; uint8 (N, H, W) or (N, H, W, 3) are needed"
        )
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)) or not len(images):
        raise ValueError(
            f"{where} {split}: labels are {labels.dtype} {labels.shape}, integers ({len(images)},) are needed"
        )
    return array_split(split, images, labels.reshape(-1).astype(np.int64))


def array_split(split: str, images: np.ndarray, labels: np.ndarray) -> Split:
    """A split that lies in memory; its keys are its name and a number."""
    return Split(
        keys=[f"{split}-{i:0{len(str(len(images) - 1))}d}" for i in range(len(images))],
        labels=labels,
        read=lambda i: images[i],
    )
