import errno
import gc
import io
import os
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.data.batch import Batch, Batches, BatchLoader
from vitexp.data.mixing import mixed, partners
from vitexp.data.order import EVALUATION, EpochOrder
from vitexp.data.reader import Reader, cacheable
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.layout import BadShard
from vitexp.data.views import View


def batches_of(digits, batch=100, rank=0, ranks=1, augment="crop_flip", cached=True, rows=None, seed=0, reader=Reader):
    index = open_shards(digits, "train")
    view = View(8, augment, seed=seed)
    rows = np.arange(len(index)) if rows is None else rows
    return Batches(index, reader(index, view, cached), EpochOrder(rows, index.starts, seed), batch, rank, ranks)


def same(a, b) -> bool:
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))


def test_a_batch_holds_the_images_of_its_samples(digits) -> None:
    batches = batches_of(digits, augment="none")
    index = open_shards(digits, "train")
    pixels = Reader(index, View(8), True).pixels
    batch = batches[(0, 3)]
    assert (batch.images.dtype, tuple(batch.images.shape), batch.labels.dtype) == (
        torch.uint8,
        (100, 3, 8, 8),
        torch.int64,
    )
    assert torch.equal(batch.images, torch.from_numpy(pixels[batch.samples.numpy()]).permute(0, 3, 1, 2))
    assert batch.labels.tolist() == index.labels[batch.samples.numpy()].tolist()
    assert batch.total == 100
    assert batches[(0, 14)].total == 38


@pytest.mark.parametrize("augment", ["none", "crop_flip", "inception"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_part_the_same_global_batches(digits, augment, ranks) -> None:
    whole = batches_of(digits, augment=augment)
    parts = [batches_of(digits, rank=rank, ranks=ranks, augment=augment) for rank in range(ranks)]
    for epoch, step in [(0, 0), (0, 14), (5, 7)]:
        pieces = [part[(epoch, step)] for part in parts]
        assert all(torch.equal(torch.cat([p[i] for p in pieces]), whole[(epoch, step)][i]) for i in range(3))
        assert {piece.total for piece in pieces} == {whole[(epoch, step)].total}


def test_more_ranks_than_images_leave_some_without(digits) -> None:
    rows = np.arange(5)
    sizes = [len(batches_of(digits, batch=4, rank=rank, ranks=4, rows=rows)[(0, 1)].labels) for rank in range(4)]
    assert sorted(sizes) == [0, 0, 0, 1]


def test_evaluation_sees_every_row_once_unchanged_on_any_ranks(digits) -> None:
    rows = np.arange(3, 1400, 7)
    for ranks in (1, 3):
        loaders = [BatchLoader(batches_of(digits, 64, rank, ranks, rows=rows), workers=0) for rank in range(ranks)]
        assert len({len(loader) for loader in loaders}) == 1  # so that no rank waits for another
        samples = torch.cat([batch.samples for loader in loaders for batch in loader])
        assert sorted(samples.tolist()) == rows.tolist()
    plain = BatchLoader(batches_of(digits, 64, augment="none", rows=rows), workers=0)
    assert all(map(same, BatchLoader(batches_of(digits, 64, rows=rows), workers=0), plain))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_bit(digits, workers, cached) -> None:
    here = BatchLoader(batches_of(digits, cached=cached), 0, lambda: (4, 5))
    there = BatchLoader(batches_of(digits, cached=cached), workers, lambda: (4, 5))
    for _ in range(2):  # the second time from workers that live on
        found = list(there)
        assert len(found) == 10
        assert all(map(same, found, here))


def test_starting_workers_draws_nothing_from_the_runs_own_randomness(digits) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(BatchLoader(batches_of(digits), 1, lambda: (0, 12)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("augment", ["none", "flip", "crop", "crop_flip", "inception"])
def test_all_readers_give_the_same_pixels(digits, augment) -> None:
    cached, local = (batches_of(digits, augment=augment, cached=cached) for cached in (True, False))
    for place in [(0, 0), (2, 14), (-1, 3)]:
        assert same(cached[place], local[place])


def test_the_place_is_asked_when_the_first_batch_is(digits) -> None:
    place = [(0, 0)]
    loader = BatchLoader(batches_of(digits), 0, lambda: place[0])
    iterator = iter(loader)
    place[0] = (2, 14)
    assert same(next(iterator), batches_of(digits)[(2, 14)])
    assert next(iterator, None) is None
    assert len(loader) == 15


def test_leaving_an_epoch_early_leaves_nothing_behind(digits) -> None:
    loader = BatchLoader(batches_of(digits), 1, lambda: (1, 0))
    next(iter(loader))
    assert all(map(same, loader, BatchLoader(batches_of(digits), 0, lambda: (1, 0))))


@pytest.mark.parametrize("end", ["close", "cycle"])
def test_workers_end_with_their_loader(digits, end, monkeypatch) -> None:
    """At a word from it. A worker that gets none looks for itself now and then, here after minutes, and is still there
    when torch has waited for it."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 30)
    monkeypatch.setattr(torch.utils.data._utils.worker, "MP_STATUS_CHECK_INTERVAL", 600)
    gc.collect()  # loaders that earlier tests left in cycles end their workers before this test counts
    join, left = BaseProcess.join, []

    def joined(process, timeout=None):
        join(process, timeout)
        left.append(process.exitcode)

    monkeypatch.setattr(BaseProcess, "join", joined)
    loader = BatchLoader(batches_of(digits), 2, lambda: (1, 0))
    next(iter(loader))
    if end == "close":
        loader.close()
    else:
        cycle = [loader]
        cycle.append(cycle)
        del loader, cycle
        gc.collect()
    assert left == [0, 0]


def test_an_error_in_a_worker_arrives_with_its_name(tmp_path, make_set) -> None:
    batches = batches_of_small(make_set(tmp_path, train=[[0] * 8]))
    (tmp_path / "toy-train-000000.tar").write_bytes(b"x")
    for workers in (0, 1):
        with pytest.raises(BadShard, match=r"^[^\n]*toy-train-000000\.tar has changed[^\n]*$"):
            list(BatchLoader(batches, workers))


def test_an_unreadable_shard_is_one_sentence_from_here_and_from_a_worker(tmp_path, make_set, monkeypatch) -> None:
    """As on a disk or mount that fails while training reads."""
    batches = batches_of_small(make_set(tmp_path, train=[[0] * 8]))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("vitexp.data.shards.files.os.preadv", fail)
    for workers in (0, 1):
        with pytest.raises(
            ValueError, match=r"^[^\n]*toy-train-000000\.tar cannot be read \(Input/output error\); [^\n]*$"
        ):
            list(BatchLoader(batches, workers))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x.npy"), r"/x\.npy: Permission denied"),
        (OSError("odd"), "odd"),
        (MemoryError(), "no memory is left"),
    ],
)
def test_any_other_failure_to_read_in_a_worker_is_one_sentence(digits, error, words) -> None:
    class Failing(Reader):
        def read(self, *_: object) -> np.ndarray:
            raise error

    with pytest.raises(ValueError, match=rf"^a data worker could not read images: {words}; [^\n]*$"):
        list(BatchLoader(batches_of(digits, reader=Failing), 1))


@pytest.mark.parametrize(("batch", "ranks"), [(30, 2), (50, 3), (64, 4)])
def test_mixed_pairs_are_the_same_on_any_number_of_ranks(digits, batch, ranks) -> None:
    """Also where a rank's share of the batch is odd, and in the last batch, which is smaller."""
    index = open_shards(digits)
    reader = Reader(index, View(8), True)
    order = EpochOrder(np.arange(97), index.starts, 0)

    def steps(of: int) -> list[list[Batch]]:
        sets = [Batches(index, reader, order, batch, rank, of, "mixup_cutmix") for rank in range(of)]
        return [[each[1, step] for each in sets] for step in range(len(sets[0]))]

    for (whole,), parts in zip(steps(1), steps(ranks), strict=True):
        images = torch.cat([mixed(part.images.float(), part.recipe) for part in parts])
        assert torch.equal(images, mixed(whole.images.float(), whole.recipe))
        assert torch.equal(torch.cat([partners(part.labels) for part in parts]), partners(whole.labels))
        assert not torch.equal(images, whole.images.float())
        assert {part.total for part in parts} == {whole.total}
    assert Batches(index, reader, order, batch, 0, 1, "mixup")[EVALUATION, 0].recipe is None


def batches_of_small(folder):
    index = open_shards(folder)
    view = View(4)
    return Batches(index, Reader(index, view, False), EpochOrder(np.arange(len(index)), index.starts, 0), 4, 0, 1)


@pytest.mark.parametrize(
    "sizes", [[(32, 32)] * 6, [(64, 64)] * 6, [(40, 64), (90, 30), (32, 32), (64, 64), (33, 47), (150, 150)]]
)
@pytest.mark.parametrize("augment", ["none", "crop_flip", "inception"])
@pytest.mark.parametrize("measured", ["resize", "crop"])
def test_readers_agree_on_photographs_or_the_cache_is_refused(tmp_path, write_tar, sizes, augment, measured) -> None:
    members = []
    for i, size in enumerate(sizes):
        members += [(f"k{i}.jpg", photograph(i, *size)), (f"k{i}.cls", b"0")]
    write_tar(tmp_path / "x-train-0.tar", members)
    index = open_shards(tmp_path)
    view = View(32, augment, measured)
    samples = np.arange(len(sizes))
    local = Reader(index, view, False)
    if (augment == "inception" or measured == "crop") and sizes[0] != (32, 32):
        assert not cacheable(index, view)
        return
    for epoch in (0, 1, EVALUATION):
        assert np.array_equal(Reader(index, view, True).read(samples, epoch), local.read(samples, epoch))


def photograph(seed: int, height: int, width: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize("augment", ["none", "inception", "randaugment"])
@pytest.mark.parametrize("size", [5, 8, 12])
def test_a_cache_changes_no_pixel_of_images_that_are_resized(digits, size, augment) -> None:
    index = open_shards(digits, "train")
    view = View(size, augment, seed=3)
    cached, local = (Reader(index, view, cached) for cached in (True, False))
    for epoch in (0, EVALUATION):
        samples = np.arange(60)
        assert np.array_equal(cached.read(samples, epoch), local.read(samples, epoch))
