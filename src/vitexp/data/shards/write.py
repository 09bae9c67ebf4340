"""A source becomes a directory of WebDataset shards that anyone can read, and the same bytes every time.

The shards grow in `OUT.partial` beside OUT, which takes its name only when everything is there: OUT is whole or absent.
A run that was stopped goes on after its last whole shard. Images are shuffled once, by a hash of their keys and a seed
that `recipe.json` keeps.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitexp import __version__
from vitexp.data.read.decode import BadImage, check_image, convert_image, decode_image
from vitexp.data.shards.index import index_shards
from vitexp.data.shards.layout import alone
from vitexp.data.sources.named import open_source
from vitexp.data.sources.source import TEST_FRACTION, Content, Source, Split, digest, hold_out
from vitexp.record import whole_file, write_atomically

Report = Callable[[int], object]
RECIPE, PROGRESS, CLASSES, INFO = "recipe.json", "progress.json", "classes.txt", "_info.json"
_CHUNK, _WINDOW = 32, 16  # images a task, tasks ahead: what is held in memory


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a source is cut into shards. The same source and layout give the same bytes."""

    seed: int = 0
    """Shuffles the images once, before they are cut into shards."""
    shard_images: int = 10_000
    """The most images in a shard."""
    shard_bytes: int = 1_000_000_000
    """The most bytes in a shard."""
    test_fraction: float | None = None
    """Held out class by class as the test split, where the source has none; 0.2 where it has no val either."""
    val_fraction: float | None = None
    """Held out of train as a validation split of its own."""
    max_bad: int = 0
    """How many unreadable images may be left out, by name in recipe.json, before it is an error."""
    check: bool = True
    """Decode every image on the way, so that no shard holds one that cannot be decoded."""

    def __post_init__(self) -> None:
        for name in ("shard_images", "shard_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")


def encode(key: str, label: int, content: Content, check: bool) -> bytes:
    """One sample as it lies in a tar: the image, then its label. Pixels, GIF, BMP, TIFF and PPM become PNG; the bytes
    of other files stay as they are.

    Raises: BadImage naming the key, for bytes that are no image; with `check` also for those that do not decode.
    """
    if not isinstance(content, np.ndarray) and (pixels := convert_image(content, key)) is not None:
        content = pixels
    if isinstance(content, np.ndarray):
        extension, data = "png", _png(content, key)
    else:
        extension, data = check_image(content, "png", key), content
        if check:
            decode_image(data, extension, key)
    return _member(f"{key}.{extension}", data) + _member(f"{key}.cls", str(label).encode())


def _png(pixels: np.ndarray, key: str) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadImage(f"{key}: pixels are {pixels.dtype} {pixels.shape}; uint8 (H, W) or (H, W, 3) are needed")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _member(name: str, data: bytes) -> bytes:
    """A regular file in a tar: without time and owner, mode 644."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def write_shard(path: Path, samples: Iterable[bytes]) -> int:
    """Writes a whole shard or none, and waits until it is on the disk; returns how many samples it holds."""
    count = 0
    with whole_file(path, path.with_suffix(".tmp")) as file:
        for count, sample in enumerate(samples, 1):  # noqa: B007
            file.write(sample)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
    return count


def _encoded(split: Split, order: np.ndarray, check: bool, pool: ThreadPoolExecutor) -> Iterator[bytes | BadImage]:
    """Encodes ahead in threads, a chunk a task, in order and never more than a window of chunks at once."""

    def one(row: int) -> bytes | BadImage:
        try:
            return encode(split.keys[row], int(split.labels[row]), split.read(row), check)
        except BadImage as error:
            return error

    ahead: deque[Future[list[bytes | BadImage]]] = deque()
    for start in range(0, len(order), _CHUNK):
        ahead.append(pool.submit(lambda rows: [one(row) for row in rows], order[start : start + _CHUNK].tolist()))
        if len(ahead) > _WINDOW:
            yield from ahead.popleft().result()
    for task in ahead:
        yield from task.result()


def _numbered(
    encoded: Iterable[bytes | BadImage], layout: Layout, left_out: list[str], report: Report
) -> Iterator[tuple[int, bytes]]:
    """The readable samples, each with the number of its shard; counts what had to be left out."""
    number, images, used = 0, 0, 0
    for sample in encoded:
        report(1)
        if isinstance(sample, BadImage):
            if len(left_out) >= layout.max_bad:
                raise BadImage(f"{sample}; repair or remove it, or allow it with --max-bad") from sample
            left_out.append(str(sample))
            continue
        images, used = images + 1, used + len(sample)
        if images > 1 and (images > layout.shard_images or used > layout.shard_bytes):
            number, images, used = number + 1, 1, len(sample)
        yield number, sample


@dataclass
class _Progress:
    """What lies whole in `OUT.partial`: per shard its split, its images, and the place where the next one begins."""

    plan: str
    shards: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def make(
    source: str | Source,
    out: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    workers: int = 0,
    report: Report = lambda images: None,
) -> Path:
    """Writes `source` to the directory `out` as WebDataset shards with their index, or finds that it has been done.

    Args:
        source: A source, or what names one: `digits`, `cifar10`, `hf:NAME`, a folder of class folders, a .tar or .npz.
        out: The directory to make; it is whole or absent. A run that was stopped goes on where it was.
        layout: How images are cut into shards and splits; the same source and layout give the same bytes.
        workers: Encoding threads; 0 for one a processor.
        report: Called with the number of images that have been written since the last call.

    Returns:
        `out`, for `ShardData(shards=...)`.

    Raises:
        ValueError: When `out` holds anything else, the disk is full, or the source is damaged; BadImage, one of them,
            for more unreadable images than `layout.max_bad`.
    """
    layout = layout or Layout()
    source = _with_splits(open_source(source) if isinstance(source, str) else source, layout)
    out, plan = Path(out), _plan(source, layout)
    out.parent.mkdir(parents=True, exist_ok=True)
    lock, work = out.with_name(f".{out.name}.lock"), out.with_name(f"{out.name}.partial")
    with alone(lock, wait_seconds=-1):  # a second writer waits here, and then finds the work done
        try:
            if not _done(out, plan):
                progress = _continue(work, plan)
                with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
                    for name in source.splits:
                        _write_split(source, name, layout, progress, work, pool, report)
                _finish(source, layout, progress, work)
                os.replace(work, out)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ValueError(
                f"no space left on the disk of {out.parent.resolve()}: whole shards so far are kept in {work.name}; "
                "free some space and run this again, or remove that directory"
            ) from error
        lock.unlink(missing_ok=True)
    return out


def _with_splits(source: Source, layout: Layout) -> Source:
    """The source with a test split, its own or held out, and a validation split where one is asked for."""
    splits = dict(source.splits)
    for name, fraction in (("test", layout.test_fraction), ("val", layout.val_fraction)):
        if name in splits and fraction is not None:
            raise ValueError(f"{source.name} has its own {name} split, so {name}_fraction has no effect; leave it out")
        if name not in splits and (fraction is not None or (name == "test" and "val" not in splits)):
            fraction = TEST_FRACTION if fraction is None else fraction
            splits["train"], splits[name] = hold_out(splits["train"], fraction, layout.seed, source.classes)
    return replace(source, splits=splits)


def _plan(source: Source, layout: Layout) -> str:
    """A digest of everything that decides the bytes, but for the pixels themselves."""
    whole = hashlib.sha256(json.dumps([source.name, source.classes, source.identity, vars(layout)]).encode())
    for name, split in sorted(source.splits.items()):
        whole.update(f"{name} {len(split)} ".encode() + "\n".join(split.keys).encode() + split.labels.tobytes())
    return whole.hexdigest()[:16]


def _done(out: Path, plan: str) -> bool:
    """Whether `out` holds this very plan already."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    recipe = out / RECIPE
    if recipe.is_file() and json.loads(recipe.read_text()).get("plan") == plan:
        return True
    raise ValueError(f"{out} exists and holds something else; name another directory, or remove it first")


def _continue(work: Path, plan: str) -> _Progress:
    """What an earlier run of the same plan left whole; what any other left is removed."""
    try:
        progress = _Progress(**json.loads((work / PROGRESS).read_text()))
        if progress.plan == plan and all((work / s["file"]).stat().st_size == s["bytes"] for s in progress.shards):
            return progress
    except (OSError, ValueError, TypeError):
        pass
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return _Progress(plan)


def _write_split(
    source: Source,
    name: str,
    layout: Layout,
    progress: _Progress,
    work: Path,
    pool: ThreadPoolExecutor,
    report: Report,
) -> None:
    split = source.splits[name]
    order = np.argsort([digest(key, layout.seed) for key in split.keys], kind="stable")
    written = [shard for shard in progress.shards if shard["split"] == name]
    place = written[-1]["next"] if written else 0
    report(place)
    bad_before = len(progress.left_out)
    encoded = _encoded(split, order[place:], layout.check, pool)
    samples = _numbered(encoded, layout, progress.left_out, report)
    for number, of_shard in groupby(samples, itemgetter(0)):
        path = work / f"{source.name}-{name}-{len(written) + number:06d}.tar"
        images = write_shard(path, (sample for _, sample in of_shard))
        # What was left out since, also of those before the next shard's first image, needs no second reading.
        place, bad_before = place + images + len(progress.left_out) - bad_before, len(progress.left_out)
        shard = {"file": path.name, "split": name, "images": images, "bytes": path.stat().st_size, "next": place}
        progress.shards.append(shard)
        write_atomically(work / PROGRESS, json.dumps(vars(progress)))


def _finish(source: Source, layout: Layout, progress: _Progress, work: Path) -> None:
    """Writes what lies beside the shards, the index last."""
    of_split = {name: [shard for shard in progress.shards if shard["split"] == name] for name in source.splits}
    images = {name: sum(shard["images"] for shard in shards) for name, shards in of_split.items()}
    splits = {
        name: {
            "name": name,
            "num_samples": images[name],
            "filenames": [shard["file"] for shard in shards],
            "shard_lengths": [shard["images"] for shard in shards],
        }
        for name, shards in of_split.items()
    }
    recipe = {"made_by": f"vitexp {__version__}", "source": source.name, "plan": progress.plan, "layout": vars(layout)}
    recipe |= {"images": images, "left_out": progress.left_out}
    write_atomically(work / CLASSES, "".join(f"{name}\n" for name in source.classes))
    write_atomically(work / INFO, json.dumps({"splits": splits}, indent=1) + "\n")
    write_atomically(work / RECIPE, json.dumps(recipe, indent=1) + "\n")
    index_shards(work)
    (work / PROGRESS).unlink(missing_ok=True)
