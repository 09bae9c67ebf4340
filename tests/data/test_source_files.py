"""What a user brings: class folders, tars of them, arrays."""

import io
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitexp.data.source_files import keys_of
from vitexp.data.sources import open_source
from vitexp.data.write import make


def picture(shade, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def tree(root, names):
    """Files whose red is their number."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i, "JPEG" if path.suffix == ".jpg" else "PNG"))
    return root


def as_tar(root, path):
    with tarfile.open(path, "w") as tar:
        tar.add(root, arcname="inside/deeper")
    return path


def found(source):
    return {
        split: sorted((source.classes[label], part.read(i)) for i, label in enumerate(part.labels))
        for split, part in source.splits.items()
    }


PLAIN = [f"{label}/{label}_{i}.png" for label in ("ape", "bee", "cow") for i in range(3)]
SPLIT = [
    f"{split}/{label}/{i}.jpg" for split in ("train", "test", "valid") for label in ("ape", "bee") for i in range(3)
]


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders(tmp_path, packed):
    root = tree(tmp_path / "my animals", PLAIN)
    source = open_source(str(as_tar(root, tmp_path / "my animals.tar") if packed else root))
    assert (source.name, source.classes) == ("my_animals", ("ape", "bee", "cow"))
    assert found(source) == {"train": sorted((name.split("/")[0], (root / name).read_bytes()) for name in PLAIN)}


@pytest.mark.parametrize("packed", [False, True])
def test_split_folders(tmp_path, packed):
    root = tree(tmp_path / "set", SPLIT)
    source = open_source(str(as_tar(root, tmp_path / "set.tar") if packed else root))
    expected = {
        word: sorted((name.split("/")[1], (root / name).read_bytes()) for name in SPLIT if name.startswith(start))
        for word, start in (("train", "train"), ("test", "test"), ("val", "valid"))
    }
    assert found(source) == expected


def test_folder_and_tar_give_the_same_shards(tmp_path):
    root = tree(tmp_path / "set", SPLIT)
    one = make(str(root), tmp_path / "one")
    other = make(str(as_tar(root, tmp_path / "set.tar")), tmp_path / "other")
    for path in one.glob("*.tar"):
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_original_bytes_are_kept(tmp_path):
    root = tree(tmp_path / "set", SPLIT)
    out = make(str(root), tmp_path / "shards")
    with tarfile.open(out / "set-test-000000.tar") as tar:
        images = {member.name: tar.extractfile(member).read() for member in tar if not member.name.endswith(".cls")}
    assert images["test-ape-0.jpg"] == (root / "test/ape/0.jpg").read_bytes()
    assert len(images) == 6


def test_other_files_are_left_out_and_said(tmp_path):
    root = tree(tmp_path / "set", PLAIN)
    for name in ("labels.csv", "ape/Thumbs.db", "ape/.DS_Store", ".git/config.png", "cow/old.bmp"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    source = open_source(str(root))
    assert len(source.splits["train"]) == 9
    assert source.notes == ["3 files of other kinds left out (1 .db, 1 .bmp, 1 .csv)"]


def test_a_link_in_a_tar_is_not_followed(tmp_path):
    root = tree(tmp_path / "set", PLAIN)
    os.symlink("/etc/hostname", root / "ape/link.png")
    os.link(root / "bee/bee_0.png", root / "ape/hard.png")
    source = open_source(str(as_tar(root, tmp_path / "set.tar")))
    assert len(source.splits["train"]) == 9


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png"], "a.png lies in no class folder"),
        (["train/a.png"], "train/a.png lies in no class folder"),
        (["train/ape/a.png", "ape/b.png"], "ape/b.png lies beside the splits"),
        (["train/ape/a.png", "test/bee/a.png"], r"test has classes that train lacks \(bee\)"),
        (["test/ape/a.png"], "holds no training image"),
        (["ape/a.txt"], "holds no training image"),
    ],
)
def test_a_folder_that_says_no_class_is_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        open_source(str(tree(tmp_path / "set", names)))


def test_a_compressed_tar_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ValueError, match="no uncompressed tar"):
        open_source(str(tmp_path / "a.tar"))


@given(st.lists(st.text("ab-_/. é", min_size=1, max_size=8).map(lambda s: f"{s}.png"), unique=True, max_size=30))
def test_keys_are_unique_and_plain(names):
    keys = keys_of(names)
    assert len(set(keys)) == len(names)
    assert all(len(key) <= 80 and key.replace("-", "").replace("_", "").isascii() for key in keys)
    assert all(character.isalnum() or character in "-_" for key in keys for character in key)


def test_keys_stay_readable():
    assert keys_of(["train/ape/1.jpg", "train/bee/1.png"]) == ["train-ape-1", "train-bee-1"]
    same, other = keys_of(["ape/1.jpg", "ape/1.png"])
    assert same != other
    assert same.startswith("ape-1-")
    one, other = keys_of(["a" * 100 + ".jpg", "a" * 101 + ".jpg"])
    assert len(one) == len(other) == 80
    assert one != other


def arrays(**changes):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
        **changes,
    }


def test_arrays(tmp_path):
    content = arrays(classes=np.array(["ape", "bee", "cow", "dog"]))
    np.savez(tmp_path / "animals.npz", **content)
    source = open_source(str(tmp_path / "animals.npz"))
    assert (source.name, source.classes) == ("animals", ("ape", "bee", "cow", "dog"))
    for split in ("train", "test"):
        np.testing.assert_array_equal(source.splits[split].labels, content[f"y_{split}"])
        for i, pixels in enumerate(content[f"x_{split}"]):
            np.testing.assert_array_equal(source.splits[split].read(i), pixels)


def test_arrays_of_medmnist_are_known_too(tmp_path):
    np.savez(
        tmp_path / "m.npz",
        train_images=np.zeros((4, 6, 5), np.uint8),
        train_labels=np.array([[0], [1], [0], [1]], np.uint8),
        val_images=np.zeros((2, 6, 5), np.uint8),
        val_labels=np.array([[0], [1]], np.uint8),
    )
    source = open_source(str(tmp_path / "m.npz"))
    assert source.classes == ("0", "1")
    assert {split: part.labels.tolist() for split, part in source.splits.items()} == {
        "train": [0, 1, 0, 1],
        "val": [0, 1],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((20, 6, 5, 3))}, r"train: images are float64 .*; uint8"),
        ({"x_test": np.zeros((8, 6, 5, 4), np.uint8)}, "test: images are uint8"),
        ({"y_train": np.arange(19)}, r"labels are int64 \(19,\), integers \(20,\)"),
        ({"y_train": np.zeros(20)}, "labels are float64"),
        ({"classes": np.array(["ape"])}, "labels run from 0 to 3"),
        ({"classes": np.array([object()])}, "no .npz of plain arrays"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message):
        open_source(str(tmp_path / "a.npz"))


def test_what_is_no_npz_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"junk")
    np.savez(tmp_path / "b.npz", images=np.zeros(3))
    for name, message in (("a.npz", "no .npz"), ("b.npz", "lacks x_train and y_train"), ("c.npz", "is no source")):
        with pytest.raises(ValueError, match=message):
            open_source(str(tmp_path / name))


def test_other_content_under_the_same_names_is_another_plan(tmp_path):
    root = tree(tmp_path / "set", PLAIN)
    make(str(root), tmp_path / "out")
    assert make(str(root), tmp_path / "out") == tmp_path / "out"
    (root / PLAIN[0]).write_bytes(picture(200) + b"more")
    with pytest.raises(ValueError, match="holds something else"):
        make(str(root), tmp_path / "out")
