import os
import pickle

import numpy as np
import pytest

from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.layout import BadShard


def test_samples_come_by_number_with_their_names(tmp_path, make_set, png) -> None:
    index = open_shards(make_set(tmp_path, train=[[0, 1, 2], [3, 4]]))
    files = ShardFiles(index).read(np.array([4, 0, 3]))
    assert [file.data for file in files] == [png(4), png(0), png(3)]
    assert [str(file.where) for file in files][:2] == [
        "toy-train-000001.tar: train001x0001",
        "toy-train-000000.tar: train000x0000",
    ]
    assert {file.extension for file in files} == {"png"}


def test_what_is_held_is_not_read_over(tmp_path, make_set, png) -> None:
    """Memory is taken again only when nobody holds a part of what was read into it."""
    files = ShardFiles(open_shards(make_set(tmp_path, train=[[0, 1, 2, 3]])))
    held = files.read(np.array([0, 1]))[1].data
    files.read(np.array([2, 3]))
    assert held == png(1)
    del held
    place = np.frombuffer(files.read(np.array([0, 1]))[0].data, np.uint8).ctypes.data
    assert np.frombuffer(files.read(np.array([2, 3]))[0].data, np.uint8).ctypes.data == place


def test_any_order_also_with_repeats_and_none(tmp_path, make_set, png) -> None:
    files = ShardFiles(open_shards(make_set(tmp_path, train=[[0, 1, 2], [3, 4]])))
    assert files.read(np.array([], np.int64)) == []
    asked = [3, 0, 3, 4, 1, 1]
    assert [file.data for file in files.read(np.array(asked))] == [png(i) for i in asked]


@pytest.mark.parametrize("length", [20, 99, 105, 300])
def test_long_and_foreign_names_are_read_too(tmp_path, write_tar, png, length) -> None:
    import tarfile

    names = [f"{'k' * length}{i}" for i in range(3)] + [f"{'ä' * (length // 4)}"]
    members = [member for i, n in enumerate(names) for member in ((f"{n}.png", png(i)), (f"{n}.cls", b"0"))]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        folder = tmp_path / str(form)
        write_tar(folder / "x-train-0.tar", members, form)
        files = ShardFiles(open_shards(folder)).read(np.arange(4))
        assert [file.data for file in files] == [png(i) for i in range(4)]


def test_a_shard_written_over_under_the_run_is_named(tmp_path, make_set) -> None:
    index = open_shards(make_set(tmp_path, train=[[0] * 10]))
    files = ShardFiles(index)
    files.read(np.array([0]))
    shard = tmp_path / index.shards[0].name
    os.utime(shard, ns=(0, 0))
    with pytest.raises(BadShard, match=r"toy-train-000000\.tar has changed since it was indexed"):
        files.read(np.array([1]))


def test_a_shard_that_grew_before_it_was_first_read_is_named(tmp_path, make_set) -> None:
    index = open_shards(make_set(tmp_path, train=[[0] * 10]))
    with open(tmp_path / index.shards[0].name, "ab") as file:
        file.write(bytes(512))
    with pytest.raises(BadShard, match="has changed"):
        ShardFiles(index).read(np.array([0]))


def test_a_shard_cut_off_under_the_run_is_named(tmp_path, make_set) -> None:
    index = open_shards(make_set(tmp_path, train=[[0] * 10]))
    files = ShardFiles(index)
    files.read(np.array([0]))
    os.truncate(tmp_path / index.shards[0].name, 5000)
    with pytest.raises(BadShard, match="has changed"):
        files.read(np.array([9]))


def test_a_shard_replaced_between_runs_is_named_even_at_the_same_size(tmp_path, make_set, write_tar, png) -> None:
    index = open_shards(make_set(tmp_path, train=[[0, 1]]))
    path = tmp_path / index.shards[0].name
    size = path.stat().st_size
    write_tar(path, [(f"other{i}.{e}", png() if e == "png" else b"0") for i in range(2) for e in ("png", "cls")])
    assert path.stat().st_size == size
    with pytest.raises(BadShard, match="has changed"):
        ShardFiles(open_shards(tmp_path)).read(np.array([0]))


def test_a_shard_replaced_under_its_name_does_no_harm(tmp_path, make_set, png) -> None:
    index = open_shards(make_set(tmp_path, train=[[0, 1]]))
    files = ShardFiles(index)
    files.read(np.array([0]))
    (tmp_path / "new").write_bytes(b"x")
    os.replace(tmp_path / "new", tmp_path / index.shards[0].name)
    assert files.read(np.array([1]))[0].data == png(1)


@pytest.mark.parametrize(("column", "value"), [("block", 0), ("block", 2**32 - 1), ("length", 2**32 - 1), ("kind", 9)])
def test_a_row_that_points_anywhere_is_an_error_not_a_crash(tmp_path, make_set, column, value) -> None:
    index = open_shards(make_set(tmp_path, train=[[0, 1]]))
    table = np.load(tmp_path / "toy-train.index.npy").copy()
    table[column][1] = value
    object.__setattr__(index, "table", table)
    with pytest.raises(BadShard, match="has changed"):
        ShardFiles(index).read(np.array([1]))


def test_open_files_are_bounded_and_closed(tmp_path, make_set, monkeypatch) -> None:
    monkeypatch.setattr("vitexp.data.shards.files._OPEN_LOCAL", 8)
    index = open_shards(make_set(tmp_path, train=[[0]] * 40))
    before = len(os.listdir("/proc/self/fd"))
    files = ShardFiles(index)
    assert len(files.read(np.arange(40))) == 40
    assert len(os.listdir("/proc/self/fd")) == before + 8
    del files
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_travel_without_their_handles(tmp_path, make_set, png) -> None:
    files = ShardFiles(open_shards(make_set(tmp_path, train=[[0, 1]])))
    files.read(np.array([0]))
    there = pickle.loads(pickle.dumps(files))  # noqa: S301
    assert there.read(np.array([1]))[0].data == png(1)
