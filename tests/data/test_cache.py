import io
import multiprocessing
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from vitexp.data import reader as cache
from vitexp.data.reader import cache_path, open_cache
from vitexp.data.shards.index import open_shards


def test_every_pixel_of_every_sample(digits) -> None:
    index = open_shards(digits, "test")
    pixels = open_cache(index, 8)
    images = []
    for shard in index.shards:
        with tarfile.open(digits / shard.name) as tar:
            images += [np.array(Image.open(tar.extractfile(m)).convert("RGB")) for m in tar if m.name.endswith(".png")]
    assert np.array_equal(pixels, np.stack(images))
    assert isinstance(pixels.base, np.memmap)
    assert not pixels.flags.writeable


def test_it_is_decoded_once(tmp_path, make_set, monkeypatch) -> None:
    index, size = open_shards(make_set(tmp_path, train=[[1, 2], [3]])), 4
    first = np.array(open_cache(index, size))
    monkeypatch.setattr(cache, "_decoded", lambda *_: pytest.fail("decoded twice"))
    assert np.array_equal(open_cache(index, size), first)
    assert first[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_images_of_one_size_are_kept_as_they_are_whatever_is_asked(tmp_path, make_set) -> None:
    index = open_shards(make_set(tmp_path, train=[[1, 2]]))
    assert open_cache(index, 16).shape == (2, 4, 4, 3)
    assert cache_path(index, 16) == cache_path(index, 8)


def test_images_of_several_sizes_are_kept_as_evaluation_sees_them(tmp_path, write_tar, png) -> None:
    sizes = [(4, 6), (9, 5), (7, 7)]
    members = [m for i, s in enumerate(sizes) for m in ((f"k{i}.png", png(i * 9, *s)), (f"k{i}.cls", b"0"))]
    write_tar(tmp_path / "x-train-0.tar", members)
    index = open_shards(tmp_path)
    pixels = open_cache(index, 6)
    assert pixels.shape == (3, 6, 6, 3)
    assert pixels[:, 2, 2, 0].tolist() == [0, 9, 18]
    assert cache_path(index, 6) != cache_path(index, 8)


def test_chunks_and_threads_keep_the_order(digits, monkeypatch, tmp_path) -> None:
    index, size = open_shards(digits, "test"), 8
    whole = open_cache(index, size)
    monkeypatch.setattr(cache, "_CHUNK", 7)
    assert np.array_equal(np.concatenate(list(cache._decoded(index, size))), whole)


def test_other_content_has_another_cache(tmp_path, make_set) -> None:
    size = 4
    one = cache_path(open_shards(make_set(tmp_path / "a", train=[[1, 2]])), size)
    other = cache_path(open_shards(make_set(tmp_path / "b", train=[[1, 1]])), size)
    assert one.name != other.name


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, "short", "other"])
def test_a_damaged_cache_is_made_again(tmp_path, make_set, content) -> None:
    index, size = open_shards(make_set(tmp_path, train=[[1, 2]])), 4
    whole, path = np.array(open_cache(index, size)), cache_path(index, size)
    if content == "short":
        os.truncate(path, path.stat().st_size - 1)
    elif content == "other":
        np.save(path, np.zeros((2, 4, 4, 3), np.float32))
    else:
        path.write_bytes(content)
    assert np.array_equal(open_cache(index, size), whole)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, make_set) -> None:
    index, size = open_shards(make_set(tmp_path, train=[[1] * 100])), 4
    path = cache_path(index, size)
    path.with_suffix(".tmp").symlink_to("/dev/full")
    with pytest.raises(
        ValueError, match=r"the disk of .*\.cache is full: the cache of 100 images .*data\.reader to local"
    ):
        open_cache(index, size)
    assert [p.suffix for p in path.parent.iterdir()] == [".lock"]


def test_a_place_that_cannot_be_written_is_replaced_or_named(tmp_path, make_set, monkeypatch) -> None:
    index = open_shards(make_set(tmp_path / "set", train=[[1]]))
    (tmp_path / "set" / ".cache").write_text("in the way")
    monkeypatch.setenv("VITEXP_CACHE", str(tmp_path / "elsewhere"))
    assert open_cache(index, 4).shape == (1, 4, 4, 3)
    assert len(list((tmp_path / "elsewhere").rglob("*.npy"))) == 1
    monkeypatch.setenv("VITEXP_CACHE", str(tmp_path / "set" / ".cache"))
    with pytest.raises(ValueError, match=r"neither .*\.cache nor .* can be written to; set VITEXP_CACHE"):
        open_cache(index, 4)


def test_a_sample_that_does_not_decode_is_named_and_leaves_nothing(tmp_path, write_tar, png) -> None:
    broken = bytearray(png(3, 40, 40))
    broken[45:60] = bytes(15)
    write_tar(
        tmp_path / "x-train-0.tar",
        [("good.png", png(1, 40, 40)), ("good.cls", b"0"), ("bad.png", bytes(broken)), ("bad.cls", b"0")],
    )
    index = open_shards(tmp_path)
    with pytest.raises(ValueError, match=r"x-train-0\.tar: bad: "):
        open_cache(index, 40)
    assert not list((tmp_path / ".cache").glob("*.npy"))
    assert not list((tmp_path / ".cache").glob("*.tmp"))


def _open(folder, results) -> None:
    results.put(int(open_cache(open_shards(folder), 4).sum()))


def test_ranks_that_open_at_once_decode_once(tmp_path, make_set) -> None:
    open_shards(make_set(tmp_path, train=[[1] * 300]))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_open, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=600) for _ in processes] == [300 * 48] * 3
    for process in processes:
        process.join(timeout=600)


def test_the_file_is_plain_npy(tmp_path, make_set) -> None:
    index, size = open_shards(make_set(tmp_path, train=[[5]])), 4
    open_cache(index, size)
    assert np.load(io.BytesIO(cache_path(index, size).read_bytes()), allow_pickle=False).shape == (1, 4, 4, 3)
