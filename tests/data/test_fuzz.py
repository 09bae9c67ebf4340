"""Hostile bytes: whatever lies in a shard or an index, the answer is the content or an error that names the file."""

import io
import json
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitexp.data.read.decode import BadImage
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.layout import BadShard, find_shards
from vitexp.data.shards.scan import plain_members, scan_shard

CASES = int(os.environ.get("VITEXP_FUZZ_CASES", "100000"))


@pytest.fixture(scope="module")
def seed_tar(png) -> bytes:
    """A sound shard in which every kind of header occurs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for i, key in enumerate(["a", "b" * 120, "ä", "d"]):
            for name, data in ((f"{key}.png", png(i)), (f"{key}.cls", str(i).encode()), (f"{key}.txt", b"x" * 700)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("e" * 150 + ".txt")
        info.size = 9
        tar.addfile(info, io.BytesIO(b"x" * 9))
    members = buffer.getvalue().rstrip(b"\0")
    return members + bytes(-len(members) % 512) + gnu.getvalue()


def mutated(data: bytes, seed: int) -> bytes:
    """Some bytes changed, moved, cut or repeated; header checksums mended half of the time, so that it goes deeper."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = (
            rng.randrange(len(out))
            if rng.random() < 0.5
            else rng.randrange(0, len(out), 512) + rng.choice((0, 124, 156, 257))
        )
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            out[at : at + 12] = rng.choice(
                (b"\x80" + b"\xff" * 11, b"77777777777\0", b"00000000000\0", b"-0000000001\0")
            )
        elif kind == 2:
            out = out[: max(512, at)]
        elif kind == 3:
            out[at:at] = out[at // 512 * 512 : at // 512 * 512 + 512]
        else:
            out[at : at + 8] = rng.randbytes(8)
    if rng.random() < 0.5:
        for at in range(0, len(out) - 511, 512):
            header = out[at : at + 512]
            if header[257:262] == b"ustar":
                header[148:156] = b" " * 8
                out[at + 148 : at + 156] = b"%06o\0 " % (sum(header) & 0o777777)
    return bytes(out)


def named(error: Exception, name: str) -> str:
    assert name in str(error)
    assert "\n" not in str(error)
    return "refused"


def scanned(folder: Path, data: bytes) -> str:
    path = folder / "x-train-0.tar"
    path.write_bytes(data)
    try:
        scan = scan_shard(path)
    except (BadShard, BadImage) as error:
        return named(error, "x-train-0.tar")
    size = len(data)
    for row in scan.rows:  # whatever is accepted can be read
        assert 0 < int(row["block"]) * 512 + int(row["length"]) <= size
        assert row["label"] >= 0
    return "read"


def fuzz_tar(folder: Path, seed_tar: bytes, cases: range) -> dict[str, int]:
    counts = {"read": 0, "refused": 0}
    for case in cases:
        counts[scanned(folder, mutated(seed_tar, case))] += 1
    return counts


def test_changed_tars(seed_tar, tmp_path) -> None:
    counts = fuzz_tar(tmp_path, seed_tar, range(600))
    assert min(counts.values()) > 20  # both ends of the reader are reached


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_any_bytes_as_a_tar(data: bytes) -> None:
    try:
        for member in plain_members(io.BytesIO(data), "x.tar"):
            assert member.offset_data + member.size <= len(data) or member.size > 0
    except BadShard as error:
        assert str(error).startswith("x.tar ")  # noqa: PT017


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, make_set) -> tuple[Path, dict, bytes]:
    folder = make_set(tmp_path_factory.mktemp("fuzz"), train=[[0, 1], [2]], test=[[0]])
    open_shards(folder)
    return (
        folder,
        json.loads((folder / "toy-train.index.json").read_text()),
        (folder / "toy-train.index.npy").read_bytes(),
    )


def answers(folder: Path) -> str:
    """Opens and reads everything there is."""
    try:
        index = open_shards(folder)
        files = ShardFiles(index).read(np.arange(len(index)))
        assert all(len(file.data) for file in files)
        return "read"
    except (BadShard, BadImage) as error:
        # of the whole set, where its classes are not those of the index
        whole = "names of the classes"
        return named(error, whole if whole in str(error) else "toy-train")


@given(st.data())
@settings(deadline=None)
def test_any_json_as_an_index(opened, data) -> None:
    folder, document, table = opened
    (folder / "toy-train.index.npy").write_bytes(table)
    changed = json.loads(json.dumps(document))
    target = data.draw(st.sampled_from(["whole", "field", "shard", "text"]))
    path = folder / "toy-train.index.json"
    if target == "text":
        path.write_bytes(data.draw(st.binary(max_size=200)))
    else:
        if target == "whole":
            changed = data.draw(JSON)
        elif target == "field":
            changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(JSON)
        else:
            changed["shardlist"][0][data.draw(st.sampled_from(sorted(changed["shardlist"][0])))] = data.draw(JSON)
        path.write_text(json.dumps(changed))
    answers(folder)


def fuzz_table(opened: tuple[Path, dict, bytes], cases: range, monkeypatch) -> dict[str, int]:
    folder, document, table = opened
    (folder / "toy-train.index.json").write_text(json.dumps(document))
    counts = {"read": 0, "refused": 0}
    for case in cases:
        rng = random.Random(case)
        changed = bytearray(table)
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(len(changed)) if rng.random() < 0.3 else rng.randrange(128, len(changed))
            changed[at] = rng.randrange(256)
        (folder / "toy-train.index.npy").write_bytes(
            changed if rng.random() < 0.9 else changed[: rng.randrange(len(changed))]
        )
        # Half of the time as in a large set, whose keys and labels are not compared with their checksum.
        monkeypatch.setattr("vitexp.data.shards.index._CHECKED_IMAGES", 0 if case % 2 else 1 << 20)
        counts[answers(folder)] += 1
    return counts


def test_changed_tables(opened, monkeypatch) -> None:
    counts = fuzz_table(opened, range(600), monkeypatch)
    assert min(counts.values()) > 10


@pytest.mark.slow
def test_a_hundred_thousand_changed_tars_and_tables(seed_tar, opened, tmp_path, monkeypatch) -> None:
    """Ends, and without any other error. Three quarters go to tars; VITEXP_FUZZ_CASES sets their number."""
    tars = fuzz_tar(tmp_path, seed_tar, range(10_000, 10_000 + CASES * 3 // 4))
    tables = fuzz_table(opened, range(10_000, 10_000 + CASES // 4), monkeypatch)
    assert sum(tars.values()) + sum(tables.values()) == CASES
    assert find_shards(tmp_path).name == "x"
