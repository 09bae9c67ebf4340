import pickle
from pathlib import Path

import numpy as np
import pytest

from vitexp.data.read.decode import BadImage
from vitexp.data.shards import scan
from vitexp.data.shards.layout import BadShard
from vitexp.data.shards.scan import key_hash, scan_shard, split_name


def test_rows_say_where_each_image_lies(tmp_path, write_tar, png) -> None:
    images = {"b": png(1), "a/c": png(2, 6, 9), "d": png(3)}
    members = []
    for label, (key, data) in enumerate(images.items()):
        members += [(f"{key}.cls", f" {label + 7}\n".encode()), (f"{key}.png", data), (f"{key}.json", b"{}")]
    path = write_tar(tmp_path / "x.tar", members)
    scan = scan_shard(path)
    content = path.read_bytes()
    for row, (key, data), label in zip(scan.rows, images.items(), (7, 8, 9), strict=True):
        start = int(row["block"]) * 512
        assert content[start : start + int(row["length"])] == data
        assert (row["label"], row["key"], row["kind"]) == (label, key_hash(key), 0)
    assert (scan.smallest, scan.largest, scan.filesize) == ([4, 4], [6, 9], len(content))


def test_a_row_takes_24_bytes(tmp_path, write_tar, png) -> None:
    assert scan_shard(write_tar(tmp_path / "x.tar", [("a.png", png()), ("a.cls", b"0")])).rows.nbytes == 24


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a.png", "a", "png"),
        ("x/y.z/a.JPG", "x/y.z/a", "jpg"),
        ("./a.seg.png", "a", "seg.png"),
        ("a", "a", ""),
        (".png", "", "png"),
    ],
)
def test_names_are_cut_as_webdataset_cuts_them(name: str, key: str, extension: str) -> None:
    assert split_name(name) == (key, extension)


def test_other_members_are_passed_over_and_counted(tmp_path, write_tar, png) -> None:
    path = write_tar(
        tmp_path / "x.tar",
        [
            ("a.txt", b"x"),
            ("a.png", png()),
            ("a.caption.txt", b"y"),
            ("a.cls", b"0"),
            ("._a.png", b"z"),
            (".png", b"z"),
            ("b.txt", b""),
        ],
    )
    scan = scan_shard(path)
    assert len(scan.rows) == 1
    assert scan.ignored == {"txt": 2, "caption.txt": 1, "_a.png": 1, "png": 1}


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("extension", ["pkl", "pyd", "pth", "seg.pickle", "NPY"])
def test_a_pickle_is_refused_and_never_opened(tmp_path, write_tar, png, extension, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_tar(tmp_path / "x.tar", [("a.png", png()), ("a.cls", b"0"), (f"a.{extension}", pickle.dumps(Bomb()))])
    with pytest.raises(BadShard, match="other readers would execute"):
        scan_shard(path)
    assert not Path("executed").exists()


IMAGE = "IMAGE"
SOUND = [("a.png", IMAGE), ("a.cls", b"0"), ("a.thumb.png", IMAGE)]  # a second image of a sample does no harm


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no samples"),
        ([("a.txt", b"x")], "holds no samples"),
        ([("a.png", IMAGE)], r"sample 'a' has no \.cls"),
        ([("a.cls", b"0")], r"sample 'a' has no image"),
        ([("a.png", IMAGE), ("b.cls", b"0")], r"sample 'a' has no \.cls"),
        ([("a.png", IMAGE), ("a.cls", b"0"), ("b.png", IMAGE), ("b.cls", b"1"), ("a.json", b"{}")], "'a' occurs twice"),
        ([("a.png", IMAGE), ("a.cls", b"0"), ("a.jpg", IMAGE)], "'a' has two images"),
        ([("a.png", IMAGE), ("a.cls", b"0"), ("a.cls", b"1")], r"'a' has two \.cls members"),
        ([("a.png", IMAGE), ("a.cls", b"")], r"'a' has an empty \.cls"),
        ([("a.png", IMAGE), ("a.cls", b" \n")], r"'a' has an empty \.cls"),
        (
            [("a.png", IMAGE), ("a.cls", b"cat")],
            r"'a' has the label b'cat'.*plain digits: .* classes\.txt",
        ),
        ([("a.png", IMAGE), ("a.cls", b"-1")], "'a' has the label b'-1'"),
        ([("a.png", IMAGE), ("a.cls", b"1.0")], "'a' has the label .*plain digits"),
        ([("a.png", IMAGE), ("a.cls", b"1e400")], "'a' has the label"),
        ([("a.png", IMAGE), ("a.cls", b"\xef\xbb\xbf1")], "'a' has the label .*plain digits"),
        ([("a.png", IMAGE), ("a.cls", b"2147483648")], "'a' has the label"),
        ([("a.png", IMAGE), ("a.json", b'{"label": 1}')], r"'a' has no \.cls .*\.json is not read for one"),
        ([("a.1.png", IMAGE), ("a.1.cls", b"0")], r"'a\.1\.png', whose key has a dot: WebDataset cuts .* key 'a'"),
        ([*SOUND, ("b.1.png", IMAGE), ("b.1.cls", b"0")], r"'b\.1\.png', whose key has a dot"),
        ([*SOUND, ("a.5.png", IMAGE), ("a.5.cls", b"0")], r"'a\.5\.png', whose key has a dot"),
        ([("a.ppm", b"P6 "), ("a.cls", b"0")], r"'a' has no image .*; its 'a\.ppm' is not read: make it a PNG"),
        ([*SOUND, ("b.5.png", IMAGE)], r"'b\.5\.png', whose key has a dot"),
        ([*SOUND, ("b.BMP", b"BM")], r"'b\.BMP', an image of a kind that is not read"),
        ([("a.png", IMAGE), ("a.cls", b"1" * 33)], r"'a' has 33 bytes of \.cls"),
    ],
)
def test_broken_samples_are_named(tmp_path, write_tar, png, members, message) -> None:
    path = write_tar(tmp_path / "broken.tar", [(n, png() if data is IMAGE else data) for n, data in members])
    with pytest.raises(BadShard, match=rf"broken\.tar.*{message}"):
        scan_shard(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"GIF89a...", "neither PNG, JPEG nor WebP"),
        (b"\x89PNG\r\n\x1a\n\0\0", "the PNG does not decode"),
    ],
)
def test_broken_images_are_named(tmp_path, write_tar, data, message) -> None:
    path = write_tar(tmp_path / "broken.tar", [("a.png", data), ("a.cls", b"0")])
    with pytest.raises(BadImage, match=rf"broken\.tar: a: .*{message}"):
        scan_shard(path)


def test_sizes_are_bounded(tmp_path, write_tar, png, monkeypatch) -> None:
    monkeypatch.setitem(scan._MAX_BYTES, "image", 10)
    with pytest.raises(BadShard, match="at most 10 are read"):
        scan_shard(write_tar(tmp_path / "x.tar", [("a.png", png()), ("a.cls", b"0")]))


def test_shards_of_webdatasets_own_writer_are_read(tmp_path) -> None:
    import webdataset

    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for i, image in enumerate(pixels):
            writer.write({"__key__": f"some/folder/k{i:03d}", "png": image, "cls": i, "json": {"i": i}})
    scan = scan_shard(tmp_path / "w.tar")
    assert scan.rows["label"].tolist() == [0, 1, 2, 3, 4]
    assert scan.rows["key"].tolist() == [key_hash(f"some/folder/k{i:03d}") for i in range(5)]
