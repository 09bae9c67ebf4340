"""Sets at a URL, from a server on loopback that can be told to fail."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from vitexp.data.module import ShardData
from vitexp.data.order import EpochOrder
from vitexp.data.read import fetch as fetching
from vitexp.data.read.fetch import Patience
from vitexp.data.shards.files import ShardFiles, make_room, mirror_directory, open_mirror
from vitexp.data.shards.index import index_shards, open_shards

QUICK = Patience(attempts=3, first_wait_seconds=0.01, silence_seconds=0.6, least_bytes_per_second=1e4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VITEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "PATIENCE", QUICK)
    return tmp_path / "cache"


@pytest.fixture
def remote(server, make_set):
    """Eight shards of 20 images, with their index."""
    make_set(server.folder, classes=4, train=[[i % 4 for i in range(20)] for _ in range(8)], test=[[0, 1]])
    index_shards(server.folder)
    return server


def images_of(data: ShardData) -> tuple[list[int], int]:
    batches = [data.train_dataloader()._batches[(1, step)] for step in range(data.steps_per_epoch)]
    return [s for b in batches for s in b.samples.tolist()], sum(int(b.images.sum()) for b in batches)


@pytest.mark.parametrize("reader", ["auto", "stream"])
def test_a_set_at_a_url_gives_the_batches_of_the_same_set_here(remote, reader) -> None:
    options = {"batch_size": 16, "augment": "flip", "train_fraction": 0.7}
    here = ShardData(shards=str(remote.folder), **options)
    there = ShardData(shards=f"{remote.url}/toy", reader=reader, **options)
    assert there.describe() == here.describe()
    assert images_of(there) == images_of(here)
    assert sorted(b.labels.tolist() for b in there.eval_loader("test")) == [[0, 1]]
    assert max(count for name, count in remote.asked.items() if name.endswith(".tar")) == 1


def test_workers_share_what_is_fetched(remote) -> None:
    data = ShardData(shards=f"{remote.url}/toy", reader="stream", workers=2, batch_size=8)
    samples = [s for batch in data.train_dataloader() for s in batch.samples.tolist()]
    assert len(samples) == len(set(samples)) == 144
    assert {count for name, count in remote.asked.items() if "train-0" in name} == {1}
    again = ShardData(shards=f"{remote.url}/toy", reader="stream", batch_size=8)
    list(again.train_dataloader())
    assert {count for name, count in remote.asked.items() if "train-0" in name} == {1}


def test_a_drop_within_an_epoch_is_mended_and_a_dead_network_ends_the_run_by_name(remote) -> None:
    data = ShardData(shards=f"{remote.url}/toy", reader="stream", batch_size=8)
    remote.faults["toy-train-000003.tar"] = ["cut", "stall"]
    assert len(list(data.train_dataloader())) == 18
    shutil.rmtree(mirror_directory(f"{remote.url}/toy"))
    data = ShardData(shards=f"{remote.url}/toy", reader="stream", batch_size=8)
    remote.faults["toy-train-000005.tar"] = ["cut"] * 9
    with pytest.raises(ValueError, match=r"toy-train-000005\.tar could not be fetched in 3 attempts"):
        list(data.train_dataloader())


def test_shards_come_ahead_of_their_use(remote) -> None:
    index = open_mirror(f"{remote.url}/toy")
    files = ShardFiles(index)
    files.prepare(np.array([2, 4]), np.array([7]))
    for _ in range(500):
        if len(list(index.directory.glob("*.tar"))) == 3:
            break
        time.sleep(0.01)
    assert {name for name in remote.asked if "train-0" in name} == {f"toy-train-00000{i}.tar" for i in (2, 4, 7)}
    assert str(files.read(np.array([40]))[0].where).startswith("toy-train-000002.tar")
    assert remote.asked["toy-train-000002.tar"] == 1


def test_what_is_longest_unused_makes_room(remote, monkeypatch) -> None:
    index = open_mirror(f"{remote.url}/toy")
    size = index.shards[0].filesize
    monkeypatch.setenv("VITEXP_CACHE_BYTES", str(3 * size))
    files = ShardFiles(index)
    for sample in range(0, 160, 20):
        assert len(files.read(np.array([sample]))) == 1
        assert sum(path.stat().st_size for path in index.directory.glob("*.tar")) <= 3 * size
    kept = {path.stem for path in index.directory.glob("*.tar")}
    assert kept == {shard.sha256 for shard in index.shards[5:]}
    with pytest.raises(ValueError, match=r"one window of toy takes .* VITEXP_CACHE_BYTES leaves"):
        files.prepare(np.arange(4), np.arange(0))
    monkeypatch.setenv("VITEXP_CACHE_BYTES", str(size - 1))
    with pytest.raises(ValueError, match="is more than VITEXP_CACHE_BYTES"):
        ShardFiles(index).read(np.array([0]))
    monkeypatch.setenv("VITEXP_CACHE_BYTES", "much")
    with pytest.raises(ValueError, match="VITEXP_CACHE_BYTES is 'much'"):
        make_room(index.directory, 1, index.directory / "x.hold")


def test_an_epoch_is_whole_also_when_there_is_room_for_little(remote, monkeypatch) -> None:
    monkeypatch.setattr(EpochOrder.__init__, "__defaults__", (40,))
    index = open_mirror(f"{remote.url}/toy")
    monkeypatch.setenv("VITEXP_CACHE_BYTES", str(4 * index.shards[0].filesize))
    data = ShardData(shards=f"{remote.url}/toy", reader="stream", batch_size=8, val_fraction=0)
    seen = [s for batch in data.train_dataloader() for s in batch.samples.tolist()]
    assert sorted(seen) == list(range(160))
    assert len(list(index.directory.glob("*.tar"))) <= 4


def test_what_a_killed_process_left_is_removed(remote, monkeypatch) -> None:
    index = open_mirror(f"{remote.url}/toy")
    size = index.shards[0].filesize
    monkeypatch.setenv("VITEXP_CACHE_BYTES", str(size))
    hold = index.directory / "x.hold"
    hold.write_bytes(bytes(size))
    os.utime(hold, (0, 0))
    left = index.directory / f"{index.shards[0].sha256}.tar.99999.tmp"
    left.write_bytes(b"half")
    ShardFiles(index).read(np.array([0]))
    assert not left.exists()
    assert not hold.exists()


def test_a_set_without_index_is_named_with_the_remedy(server, make_set) -> None:
    make_set(server.folder, train=[[0]])
    with pytest.raises(ValueError, match=r"there is no .*/toy-train\.index\.json; .*vitexp shards index"):
        ShardData(shards=f"{server.url}/toy").prepare_data()


@pytest.mark.parametrize(
    ("field", "value"),
    [("table_sha256", "../../x"), ("url", "../x.tar"), ("sha256", "/etc/passwd"), ("table_sha256", "")],
)
def test_an_index_from_afar_cannot_name_a_path(remote, field, value) -> None:
    path = remote.folder / "toy-train.index.json"
    document = json.loads(path.read_text())
    if field in document:
        document[field] = value
    else:
        document["shardlist"][0][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="is no whole index"):
        open_mirror(f"{remote.url}/toy")


def test_a_new_index_at_the_same_url_is_followed(remote, make_set) -> None:
    before = open_mirror(f"{remote.url}/toy")
    make_set(remote.folder, train=[[3] * 20])
    index_shards(remote.folder)
    after = open_mirror(f"{remote.url}/toy")
    assert after.fingerprint != before.fingerprint == before.fingerprint
    assert after.labels[:20].tolist() == [3] * 20
    (first,) = ShardFiles(after).read(np.array([0]))
    assert str(first.where) == "toy-train-000000.tar: train000x0000"
    assert open_shards(remote.folder).fingerprint == after.fingerprint


def test_readers_for_another_place_are_refused(remote) -> None:
    with pytest.raises(ValueError, match=r"reader is local, but the shards of toy lie at a URL; use stream or auto"):
        ShardData(shards=f"{remote.url}/toy", reader="local").train_dataloader()
    with pytest.raises(
        ValueError, match=r"reader is stream, but the shards of toy lie in a directory; use local or auto"
    ):
        ShardData(shards=str(remote.folder), reader="stream").train_dataloader()
