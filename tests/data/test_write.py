"""Shards are whole or absent, the same bytes each time, and an interrupted run goes on."""

import errno
import gc
import hashlib
import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import webdataset
from PIL import Image

from vitexp.data.read.decode import BadImage
from vitexp.data.shards import write
from vitexp.data.shards.write import Layout, make
from vitexp.data.sources.source import Source, Split

SMALL = Layout(shard_images=300)


def source_of(contents, test=True):
    labels = np.arange(len(contents)) % 2
    train = Split(keys=[f"a{i}" for i in range(len(contents))], labels=labels, read=lambda i: contents[i])
    splits = {"train": train}
    if test:
        pixels = np.zeros((4, 4), np.uint8)
        splits["test"] = Split(keys=["t0", "t1"], labels=np.array([0, 1]), read=lambda i: pixels)
    return Source(name="few", classes=("cat", "dog"), splits=splits)


def sums(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def members(directory, split):
    found = {}
    for path in sorted(directory.glob(f"*-{split}-*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make("digits", tmp_path_factory.mktemp("once") / "digits", layout=SMALL)


def test_twice_gives_the_same_bytes_whatever_the_threads(made, tmp_path):
    again = make("digits", tmp_path / "other_name", layout=SMALL, workers=3)
    assert sums(again) == sums(made)
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".*"))


def test_another_seed_gives_another_order_of_the_same_images(made, tmp_path):
    other = make("digits", tmp_path / "digits", layout=Layout(shard_images=300, test_fraction=None, seed=1))
    here, there = members(made, "train"), members(other, "train")
    assert here == there
    assert list(here) != list(there)
    assert list(here) != sorted(here)


def test_shards_hold_every_image_once_with_its_label(made):
    from sklearn.datasets import load_digits

    table = load_digits()
    found = members(made, "train") | members(made, "test")
    assert len(found) == 2 * 1797
    for number in range(1797):
        pixels = np.asarray(Image.open(io.BytesIO(found[f"{number:04d}.png"])))
        np.testing.assert_array_equal(pixels, np.round(table.images[number] * 255 / 16))
        assert int(found[f"{number:04d}.cls"]) == table.target[number]


def test_members_carry_nothing_but_the_data(made):
    with tarfile.open(made / "digits-train-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
            assert member.isreg()
            assert not member.pax_headers


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(made):
    urls = [str(path) for path in sorted(made.glob("digits-train-*.tar"))]
    assert len(urls) == 5
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert len(samples) == 1438
    assert {sample["cls"] for sample in samples} == set(range(10))
    assert samples[0]["png"].size == (8, 8)
    gc.collect()  # webdataset leaves its files to the collector, which complains while this test may still ignore it


def test_side_files_say_what_is_there(made):
    assert (made / "classes.txt").read_text().split() == list("0123456789")
    recipe = json.loads((made / "recipe.json").read_text())
    assert recipe["images"] == {"train": 1438, "test": 359}
    assert recipe["layout"]["seed"] == 0
    info = json.loads((made / "_info.json").read_text())["splits"]["train"]
    assert info["shard_lengths"] == [300, 300, 300, 300, 238]
    assert info["filenames"][-1] == "digits-train-000004.tar"
    assert {path.name for path in made.glob("*.index.json")} == {"digits-train.index.json", "digits-test.index.json"}


def test_a_shard_stops_at_its_bytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    out = make(source_of(list(noise)), tmp_path / "few", layout=Layout(shard_bytes=30_000))
    sizes = [path.stat().st_size for path in sorted(out.glob("few-train-*.tar"))]
    assert len(sizes) > 4
    assert max(sizes) <= 30_000 + 10_240  # a tar is filled up to blocks of 10,240
    one = make(source_of(list(noise)), tmp_path / "one", layout=Layout(shard_bytes=1))
    assert len(list(one.glob("few-train-*.tar"))) == 20


def test_original_bytes_stay_and_get_the_extension_of_their_content(tmp_path):
    files = []
    for kind in ("JPEG", "WEBP", "PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.effect_noise((20, 10), 50).save(buffer, kind)
        files.append(buffer.getvalue())
    out = make(source_of(files), tmp_path / "few")
    found = members(out, "train")
    assert [found[name] for name in ("a0.jpg", "a1.webp", "a2.png", "a3.jpg")] == files


def test_a_second_call_finds_it_done_and_another_plan_is_refused(made):
    before = sums(made)
    assert make("digits", made, layout=SMALL) == made
    with pytest.raises(ValueError, match="holds something else"):
        make("digits", made, layout=Layout(shard_images=301))
    assert sums(made) == before


def test_a_stopped_run_goes_on_after_its_last_whole_shard(made, tmp_path, monkeypatch):
    written, write_shard = [], write.write_shard

    def stop_at_the_fourth(path, images):
        written.append(path.name)
        if len(written) == 4:
            next(iter(images))
            raise KeyboardInterrupt
        return write_shard(path, images)

    monkeypatch.setattr(write, "write_shard", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        make("digits", tmp_path / "digits", layout=SMALL)
    assert not (tmp_path / "digits").exists()
    out = make("digits", tmp_path / "digits", layout=SMALL)
    assert written[4:] == ["digits-train-000003.tar", "digits-train-000004.tar", *written[6:]]
    assert sums(out) == sums(made)


def test_what_another_plan_left_is_not_used(made, tmp_path):
    partial = tmp_path / "digits.partial"
    partial.mkdir()
    (partial / "digits-train-000000.tar").write_bytes(b"old")
    shard = {"file": "digits-train-000000.tar", "split": "train", "images": 1, "bytes": 3, "next": 1}
    (partial / "progress.json").write_text(json.dumps({"plan": "other", "shards": [shard], "left_out": []}))
    assert sums(make("digits", tmp_path / "digits", layout=SMALL)) == sums(made)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"no space left .* few\.partial"):
        make(source_of([np.zeros((4, 4), np.uint8)] * 4), tmp_path / "few")
    assert not (tmp_path / "few").exists()
    assert not list(tmp_path.rglob("*.tar"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_bad_image_is_named_or_counted(tmp_path):
    good = np.zeros((4, 4), np.uint8)
    source = source_of([good, good, b"junk", good])
    with pytest.raises(BadImage, match=r"a2.*neither.*--max-bad"):
        make(source, tmp_path / "few")
    out = make(source, tmp_path / "few", layout=Layout(max_bad=1))
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["images"]["train"] == 3
    assert len(recipe["left_out"]) == 1
    assert recipe["left_out"][0].startswith("a2:")


def test_an_image_that_does_not_decode_is_found_while_writing(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    source = source_of([buffer.getvalue(), buffer.getvalue()[:-200]])
    with pytest.raises(BadImage, match="a1"):
        make(source, tmp_path / "few")
    assert make(source, tmp_path / "few", layout=Layout(check=False)).is_dir()


def test_validation_and_test_are_held_out_where_asked(tmp_path):
    source = source_of([np.full((4, 4), i, np.uint8) for i in range(100)], test=False)
    out = make(source, tmp_path / "few", layout=Layout(val_fraction=0.1))
    images = json.loads((out / "recipe.json").read_text())["images"]
    assert images == {"train": 72, "test": 20, "val": 8}
    found = [members(out, split) for split in ("train", "test", "val")]
    assert len(set.union(*(set(names) for names in found))) == 200
    with pytest.raises(ValueError, match="has its own test split"):
        make("digits", tmp_path / "digits", layout=Layout(test_fraction=0.5))


def test_progress_is_reported_image_by_image(tmp_path):
    seen = []
    make("digits", tmp_path / "digits", layout=SMALL, report=seen.append)
    assert sum(seen) == 1797


def test_two_writers_at_once_make_it_once(made, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(make, "digits", tmp_path / "digits", layout=SMALL) for _ in range(2)]
        assert [sums(job.result()) for job in jobs] == [sums(made)] * 2
