"""A second reading of a shard set finds what is wrong, and what should not be."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vitexp import cli
from vitexp.data.info import open_splits, verify
from vitexp.data.shards.index import content_fingerprint, index_shards
from vitexp.data.shards.write import make
from vitexp.data.sources.source import Source, Split


@pytest.fixture
def copy(digits, tmp_path):
    return shutil.copytree(digits, tmp_path / "digits")


def jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_sound_set_has_no_problems(digits):
    seen = []
    found = verify(open_splits(digits), report=seen.append)
    assert (found.images, found.problems) == (1797, [])
    assert sum(seen) == 1797


def test_one_changed_byte_is_found(copy):
    path = copy / "digits-test-000001.tar"
    data = bytearray(path.read_bytes())
    data[len(data.rstrip(b"\0"))] ^= 1  # in the filling after the last member: every sample is as it was
    path.write_bytes(data)
    problems = verify(open_splits(copy)).problems
    assert len(problems) == 1
    assert problems[0].startswith("digits-test-000001.tar: sha256 is")


def test_an_index_that_lies_is_found(copy):
    """A label changed in the table and in its checksum's place: only the shards themselves can tell."""
    path, document = copy / "digits-train.index.npy", copy / "digits-train.index.json"
    table, shards = np.load(path), json.loads(document.read_text())["shardlist"]
    before = content_fingerprint(table, shards)
    table["label"][300] = (table["label"][300] + 1) % 10
    np.save(path, table)
    document.write_text(document.read_text().replace(before, content_fingerprint(table, shards)))
    problems = verify(open_splits(copy)).problems
    assert len(problems) == 1
    assert "digits-train-000001.tar: the index does not describe this shard" in problems[0]


def test_an_image_that_does_not_decode_is_found_with_its_key(write_tar, tmp_path):
    members = []
    for i in range(4):
        data = jpeg(i)
        members += [(f"k{i}.jpg", data[:-200] if i == 2 else data), (f"k{i}.cls", b"0")]
    write_tar(tmp_path / "few-train-000000.tar", members)
    index_shards(tmp_path)
    problems = verify(open_splits(tmp_path)).problems
    assert len(problems) == 1
    assert problems[0].startswith("few-train-000000.tar: k2: the JPEG does not decode")
    assert verify(open_splits(tmp_path), decode=False).problems == []


def test_copies_are_named_when_shards_are_made(tmp_path, capsys):
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / "own" / place).mkdir(parents=True)
        for i in range(3):
            copied = i == 0 and place != "test/b"
            (tmp_path / "own" / place / f"{i}.jpg").write_bytes(jpeg(0 if copied else 1 + 3 * number + i))
    assert cli.main(["shards", "make", str(tmp_path / "own"), str(tmp_path / "out")]) in (0, None)
    told = capsys.readouterr().err
    assert "note: 1 images lie in train and in test, byte for byte" in told
    assert "note: 1 images of train lie in two classes, byte for byte" in told


def test_an_image_in_two_splits_is_noted(tmp_path):
    contents = [jpeg(i) for i in range(6)]
    train = Split(keys=[f"a{i}" for i in range(4)], labels=np.zeros(4, int), read=lambda i: contents[i])
    test = Split(keys=["b0", "b1", "b2"], labels=np.zeros(3, int), read=lambda i: contents[i + 3])
    out = make(Source(name="few", classes=("a",), splits={"train": train, "test": test}), tmp_path / "few")
    found = verify(open_splits(out))
    assert found.problems == []
    assert found.notes == [
        "every training image is of one class, a",
        "1 images lie in train and in test, byte for byte",
    ]
