"""What a shard set holds, as text and as a contact sheet, and all that is wrong with it."""

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vitexp.data.read.decode import EXTENSIONS, decode_image
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import ShardIndex, open_shards
from vitexp.data.shards.layout import find_shards
from vitexp.data.shards.scan import scan_shard
from vitexp.data.views import View
from vitexp.record import write_atomically

_SHOWN, _SHOWN_CLASSES = 5, 24
_SHEET_COLUMNS, _CELL_PIXELS, _GAP_PIXELS, _NAME_PIXELS = 8, 64, 2, 120
_PART = 32  # images a task


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


def open_splits(directory: str | os.PathLike[str]) -> dict[str, ShardIndex]:
    """Every split of a set by its name, train or not."""
    return {split: open_shards(directory, split) for split in find_shards(directory).splits}


def summary(indexes: Mapping[str, ShardIndex], directory: str | os.PathLike[str]) -> str:
    """One line: what, how much, where."""
    first = next(iter(indexes.values()))
    counts = " + ".join(f"{len(index):,} {split}" for split, index in indexes.items())
    shards = sum(len(index.shards) for index in indexes.values())
    return f"{first.name}: {counts} images of {first.classes} classes in {shards} shards -> {directory}"


def notes(indexes: Mapping[str, ShardIndex]) -> list[str]:
    """What is odd about the classes of a set."""
    if "train" not in indexes:
        return ["there is no train split, and so nothing to train on"]
    counts = {split: np.bincount(index.labels, minlength=index.classes) for split, index in indexes.items()}
    return class_notes(indexes["train"].class_names, counts)


def document(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What `shards info --json` prints."""
    indexes = open_splits(directory)
    first = next(iter(indexes.values()))
    return {
        "schema": "vitexp.shards_info/1",
        "name": first.name,
        "directory": str(directory),
        "image_size": first.image_size,
        "class_names": first.class_names,
        "splits": {split: _facts(index) for split, index in indexes.items()},
        "recipe": _recipe(Path(directory)),
        "notes": notes(indexes),
    }


def describe(directory: str | os.PathLike[str]) -> str:
    """Counts, classes and sizes, a line each."""
    indexes = open_splits(directory)
    first = next(iter(indexes.values()))
    lines = [summary(indexes, directory), *_origin(Path(directory))]
    lines.append(f"{'split':8}{'images':>12}{'shards':>8}{'MB':>10}  images a class   kinds")
    lines += [_row(split, index) for split, index in indexes.items()]
    names = ", ".join(first.class_names[:_SHOWN_CLASSES]) + (", ..." if first.classes > _SHOWN_CLASSES else "")
    size = first.image_size
    lines.append(f"images   {f'all {size[0]} x {size[1]} pixels (height x width)' if size else 'of different sizes'}")
    lines.append(f"classes  {names}")
    lines += [f"{split} fingerprint  {index.fingerprint[:16]}" for split, index in indexes.items()]
    return "\n".join([*lines, *(f"note: {note}" for note in notes(indexes))])


def _facts(index: ShardIndex) -> dict[str, Any]:
    """What is counted of a split; `images_per_class` in the order of the classes, sizes in bytes."""
    kinds = np.bincount(index.table["kind"], minlength=len(EXTENSIONS)).tolist()
    return {
        "images": len(index),
        "shards": len(index.shards),
        "bytes": sum(shard.filesize for shard in index.shards),
        "images_per_class": np.bincount(index.labels, minlength=index.classes).tolist(),
        "kinds": {kind: count for kind, count in zip(EXTENSIONS, kinds, strict=True) if count},
        "fingerprint": index.fingerprint,
    }


def _row(split: str, index: ShardIndex) -> str:
    facts = _facts(index)
    fewest, most = min(facts["images_per_class"]), max(facts["images_per_class"])
    spread = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    formats = ", ".join(f"{count:,} {kind}" for kind, count in facts["kinds"].items())
    return f"{split:8}{len(index):12,}{len(index.shards):8,}{facts['bytes'] / 1e6:10,.1f}  {spread:15}  {formats}"


def _origin(directory: Path) -> list[str]:
    """How the shards were made, where `vitexp shards make` has noted it."""
    recipe = _recipe(directory)
    if recipe is None:
        return []
    left_out = recipe.get("left_out", [])
    lines = [f"made by  {recipe.get('made_by')} from {recipe.get('source')}, plan {recipe.get('plan')}"]
    return lines + [f"left out {len(left_out)} images: {left_out[0]}" for _ in left_out[:1]]


def _recipe(directory: Path) -> dict[str, Any] | None:
    path = directory / "recipe.json"
    return json.loads(path.read_text()) if path.is_file() else None


def contact_sheet(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Draws the first images of each class, of train where there is one (up to 24 classes), a row a class, as a PNG."""
    indexes = open_splits(directory)
    index = indexes.get("train") or next(iter(indexes.values()))
    shown = min(index.classes, _SHOWN_CLASSES)
    pitch = _CELL_PIXELS + _GAP_PIXELS
    sheet = Image.new("RGB", (_NAME_PIXELS + _SHEET_COLUMNS * pitch, shown * pitch), "white")
    draw, files, view = ImageDraw.Draw(sheet), ShardFiles(index), View(_CELL_PIXELS)
    for label in range(shown):
        top = label * pitch
        draw.text((4, top + _CELL_PIXELS // 2 - 6), index.class_names[label][:18], fill="black")
        samples = np.flatnonzero(index.labels == label)[:_SHEET_COLUMNS]
        for column, pixels in enumerate(view.from_files(files.read(samples), 0, samples)):
            sheet.paste(Image.fromarray(pixels), (_NAME_PIXELS + column * pitch, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
    return Path(path)


@dataclass
class Findings:
    """What `verify` found: problems, each naming its shard, and notes on what is odd."""

    images: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    indexes: Mapping[str, ShardIndex],
    decode: bool = True,
    workers: int = 0,
    report: Callable[[int], object] = lambda images: None,
) -> Findings:
    """Compares every shard with its index, decodes every image, and looks for images that lie in two splits."""
    found, contents = Findings(notes=notes(indexes)), {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for split, index in indexes.items():
            found.images += len(index)
            found.problems += filter(None, pool.map(partial(_shard_problem, index), range(len(index.shards))))
            if decode and not found.problems:
                hashes = np.empty(len(index), np.uint64)
                for start, bad in pool.map(partial(_decode, ShardFiles(index), hashes), range(0, len(index), _PART)):
                    found.problems += bad
                    report(len(hashes[start : start + _PART]))
                contents[split] = hashes
    found.notes += _copies(indexes, contents)
    return found


def copies(indexes: Mapping[str, ShardIndex]) -> list[str]:
    """A sentence for each kind of image that is there more than once and should not be; no image is decoded."""
    contents = {split: np.empty(len(index), np.uint64) for split, index in indexes.items()}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for split, index in indexes.items():
            work = partial(_decode, ShardFiles(index), contents[split], check=False)
            list(pool.map(work, range(0, len(index), _PART)))
    return _copies(indexes, contents)


def _copies(indexes: Mapping[str, ShardIndex], contents: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    for (one, here), (other, there) in combinations(contents.items(), 2):
        if shared := len(np.intersect1d(here, there)):  # a test that was trained on
            found.append(f"{shared} images lie in {one} and in {other}, byte for byte")
    for split, hashes in contents.items():
        order = np.lexsort((indexes[split].labels, hashes))
        same, labels = hashes[order][1:] == hashes[order][:-1], np.asarray(indexes[split].labels)[order]
        if several := int(np.sum(same & (labels[1:] != labels[:-1]))):
            found.append(f"{several} images of {split} lie in two classes, byte for byte")
    return found


def _shard_problem(index: ShardIndex, number: int) -> str | None:
    """A scan of the shard as if it were new, compared with what the index keeps of it."""
    shard = index.shards[number]
    try:
        scan = scan_shard(Path(index.directory) / shard.name, shard.name)
    except (ValueError, OSError) as error:
        return str(error)
    if scan.sha256 != shard.sha256:
        return f"{shard.name}: sha256 is {scan.sha256[:16]}..., the index has {shard.sha256[:16]}...; it has changed"
    if not np.array_equal(scan.rows, index.table[index.starts[number] : index.starts[number + 1]]):
        return f"{shard.name}: the index does not describe this shard; make it again with `vitexp shards index`"
    return None


def _decode(files: ShardFiles, hashes: np.ndarray, start: int, check: bool = True) -> tuple[int, list[str]]:
    """Notes a hash of the bytes of each image from `start` on, decodes it, and says what is wrong."""
    bad = []
    for i, file in enumerate(files.read(np.arange(start, min(start + _PART, len(hashes)))), start):
        hashes[i] = int.from_bytes(blake2b(file.data, digest_size=8).digest())
        if not check:
            continue
        try:
            decode_image(*file)
        except ValueError as error:
            bad.append(str(error))
    return start, bad
