"""Input speed beside its peers: `python bench/data.py [FOLDER or .tar ...]`.

All that is compared runs in turns in one process on one thread; a figure is the median over the turns, in images per
CPU second, so that another load on the machine matters little. Ratios count, not the figures.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from vitexp import torch_ops  # noqa: F401  (before torchvision)
from vitexp.data.module import ShardData
from vitexp.data.read.decode import FAST, decode_image
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.write import make

SIZE, BATCH, PIECE_BYTES = 224, 64, 2_000_000
Run = Callable[[], int]


def main() -> None:
    """Measures photographs, small images, raw reading and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "photographs",
        nargs="*",
        help="folders or tars of class folders of JPEG files; by default two scenes of scikit-learn's",
    )
    parser.add_argument("--turns", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for source in chosen.photographs or [str(_sample_photographs(Path(place) / "scenes"))]:
            photographs(make(source, Path(place) / "shards" / Path(source).stem), Path(place), chosen.turns)
        small = make("digits", Path(place) / "digits")
        small_images(small, chosen.turns)
        for shards in sorted((Path(place) / "shards").glob("*")):
            raw(shards, chosen.turns)
        memory(small)


def compare(title: str, runs: dict[str, Run], base: str, turns: int) -> None:
    """Runs all in turns and prints the medians, and each as a multiple of `base`."""
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            start = time.process_time()
            images = run()
            if turn:  # the first warms caches
                figures[name].append(images / (time.process_time() - start))
    medians = {name: statistics.median(found) for name, found in figures.items()}
    print(f"\n{title}")
    for name, figure in medians.items():
        print(f"  {name:52} {figure:12,.0f} images/CPU s {figure / medians[base]:8.2f}")
    sys.stdout.flush()


def photographs(shards: Path, place: Path, turns: int) -> None:
    """Decode + random resized crop + flip, into batches."""
    from torchvision.datasets import ImageFolder

    data = ShardData(
        shards=str(shards), image_size=SIZE, augment="inception", batch_size=BATCH, reader="local", val_fraction=0.02
    )
    folder = _class_folders(shards, place / "folder")
    loader = torch.utils.data.DataLoader(ImageFolder(folder, _torchvision()), BATCH, shuffle=True)
    files = [file.data for file in ShardFiles(open_shards(shards)).read(np.arange(len(open_shards(shards))))]
    name = "simplejpeg" if FAST else "Pillow"
    runs: dict[str, Run] = {
        "stock webdataset + torchvision": lambda: _drain(_stock(shards, _torchvision())),
        "torchvision ImageFolder": lambda: _drain(loader),
        "vitexp": lambda: _drain(data.train_dataloader()),
        f"bare full JPEG decode ({name})": lambda: _decode_all(files),
    }
    compare(
        f"photographs, {shards.name}: {SIZE} random resized crop + flip", runs, "stock webdataset + torchvision", turns
    )


def _sample_photographs(folder: Path) -> Path:
    """Where no photographs are given: parts of the two that come with scikit-learn, about 500 x 375 pixels each."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    for name, scene in enumerate(load_sample_images().images):
        (folder / str(name)).mkdir(parents=True)
        for i in range(100):
            height, width = random.integers(330, 420), random.integers(450, 560)
            top, left = random.integers(0, scene.shape[0] - height), random.integers(0, scene.shape[1] - width)
            part = Image.fromarray(scene[top : top + height, left : left + width])
            part.save(folder / str(name) / f"{i}.jpg", quality=92)
    return folder


def _torchvision() -> Callable[..., torch.Tensor]:
    from torchvision import transforms

    steps = [transforms.RandomResizedCrop(SIZE, scale=(0.05, 1)), transforms.RandomHorizontalFlip()]
    steps += [transforms.Lambda(lambda image: image.convert("RGB")), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])


def _stock(shards: Path, view: Callable[..., torch.Tensor]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    import webdataset

    urls = [str(path) for path in sorted(shards.glob("*-train-*.tar"))]
    stream = webdataset.WebDataset(urls, shardshuffle=False).shuffle(1000).decode("pil").to_tuple("jpg;png", "cls")
    return torch.utils.data.DataLoader(stream.map_tuple(view, int), BATCH)


def _class_folders(shards: Path, folder: Path) -> Path:
    for path in shards.glob("*-train-*.tar"):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, data in members.items():
            if not name.endswith(".cls"):
                label = members[f"{name.rpartition('.')[0]}.cls"].decode()
                (folder / label).mkdir(parents=True, exist_ok=True)
                (folder / label / name).write_bytes(data)
    return folder


def _drain(batches: Iterable[tuple[torch.Tensor, ...]]) -> int:
    return sum(len(batch[0]) for batch in batches)


def _decode_all(files: list[bytes]) -> int:
    if FAST:
        import simplejpeg

        for data in files:
            simplejpeg.decode_jpeg(data, "RGB")
    else:
        for data in files:
            decode_image(data, "jpg", "bench")
    return len(files)


def small_images(shards: Path, turns: int) -> None:
    """The cache against stock webdataset, and against a plain gather with the same augmentation written in torch."""
    from torchvision import transforms

    data = ShardData(shards=str(shards), augment="crop_flip", batch_size=128, reader="cache", val_fraction=0.02)
    steps = [transforms.RandomCrop(8, 1, padding_mode="reflect"), transforms.RandomHorizontalFlip()]
    view = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    pixels = torch.randint(0, 256, (data.train_count, 3, 8, 8), dtype=torch.uint8)
    runs: dict[str, Run] = {
        "stock webdataset + torchvision": lambda: _drain(_stock(shards, lambda image: view(image.convert("RGB")))),
        "vitexp from the cache": lambda: sum(_drain(data.train_dataloader()) for _ in range(10)),
        "plain tensor gather, crop and flip": lambda: sum(_drain(_gathered(pixels, 128)) for _ in range(10)),
    }
    compare(f"small images, {shards.name} 8x8: crop + flip", runs, "stock webdataset + torchvision", turns)


def _gathered(pixels: torch.Tensor, size: int) -> Iterable[tuple[torch.Tensor]]:
    """A shuffled epoch from memory: pad by reflection, crop, flip, by one gather a batch."""
    count, channels, height, width = pixels.shape
    order = torch.randperm(count)
    rows = torch.nn.functional.pad(torch.arange(height).view(1, 1, -1).float(), (1, 1), mode="reflect").long().flatten()
    for batch in order.split(size):
        images = pixels[batch].flatten(2)
        down, right = torch.randint(0, 3, (2, len(batch), 1))
        columns = torch.arange(width).expand(len(batch), -1)
        columns = torch.where(torch.rand(len(batch), 1) < 0.5, columns.flip(1), columns)
        places = rows[down + torch.arange(height)][:, :, None] * width + rows[right + columns][:, None, :]
        places = places.view(len(batch), 1, -1).expand(-1, channels, -1)
        yield (images.gather(2, places).view(len(batch), channels, height, width),)


def raw(shards: Path, turns: int) -> None:
    """Every image's bytes by the index, in the order of the shards, against `cat` of the same tars. Both read pieces
    that stay in the processor's cache.
    """
    index = open_shards(shards)
    files, tars = ShardFiles(index), [str(shards / shard.name) for shard in index.shards]
    piece = max(1, PIECE_BYTES * len(index) // sum(shard.filesize for shard in index.shards))
    ours, cats = [], []
    for turn in range(turns + 1):
        start = time.process_time()
        for first in range(0, len(index), piece):
            files.read(np.arange(first, min(first + piece, len(index))))
        spent = time.process_time() - start
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(["cat", *tars], stdout=subprocess.PIPE) as cat:
            assert cat.stdout is not None
            while cat.stdout.read(1 << 20):
                pass
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if turn:
            ours.append(spent)
            cats.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    megabytes = sum(os.path.getsize(tar) for tar in tars) / 1e6
    mine, cat_seconds = statistics.median(ours), statistics.median(cats)
    print(f"\nraw reading, {shards.name}, {megabytes:.0f} MB")
    speeds = f"vitexp {megabytes / mine:,.0f} MB/CPU s, cat {megabytes / cat_seconds:,.0f}"
    print(f"  {speeds}: {cat_seconds / mine:.2f} of cat")


def memory(shards: Path) -> None:
    """Resident memory of a worker over 20 epochs."""
    data = ShardData(shards=str(shards), augment="crop_flip", batch_size=128, reader="local", image_size=8, workers=1)
    loader, seen = data.train_dataloader(), []
    for _ in range(20):
        _drain(loader)
        seen.append(sum(_resident(child) for child in _children(os.getpid())) + _resident(os.getpid()))
    print(f"\nmemory over 20 epochs with a worker: {seen[1]:.0f} MB after 2, {seen[-1]:.0f} MB after 20")


def _children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def _resident(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return 0.0


if __name__ == "__main__":
    main()
