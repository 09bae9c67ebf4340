"""What a user brings: class folders, tars of them, arrays."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitexp.data.read.decode import BadImage, decode_image
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.write import Layout, make
from vitexp.data.sources.named import open_source
from vitexp.data.sources.source import keys_of


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
    for name in ("labels.csv", "ape/Thumbs.db", "ape/.DS_Store", ".git/config.png", "cow/old.doc"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    source = open_source(str(root))
    assert len(source.splits["train"]) == 9
    assert source.notes == ["3 files of other kinds left out (1 .db, 1 .doc, 1 .csv)"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_a_tar_is_refused_by_name(tmp_path, link):
    root = tree(tmp_path / "set", PLAIN)
    link(root / "bee/bee_0.png", root / "cow/more.png")
    with pytest.raises(ValueError, match=r"holds 'inside/deeper/.*, a link .*--dereference"):
        open_source(str(as_tar(root, tmp_path / "set.tar")))


def test_a_tar_is_read_to_its_end_or_refused(tmp_path):
    path = as_tar(tree(tmp_path / "set", PLAIN), tmp_path / "set.tar")
    whole = path.read_bytes()
    used = len(whole.rstrip(b"\0"))
    for content, reason in (
        (whole + whole, "goes on after its end"),
        (whole[: -(-used // 512) * 512], "is cut off at byte"),
        (whole[: used - 700], "is no whole, uncompressed tar"),
        (whole[: -(-used // 512) * 512] + b"x" * 10240, "is damaged at byte"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            open_source(str(path))


def test_links_are_followed(tmp_path):
    root = tree(tmp_path / "all", [f"train/{name}" for name in PLAIN])
    for name in ("classes/ape", "mixed/train", "files/ape/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
    tree(tmp_path / "classes", ["dog/1.png"])
    (tmp_path / "classes/ape").symlink_to(root / "train/ape")
    (tmp_path / "mixed/train").symlink_to(root / "train")
    (tmp_path / "files/ape/1.png").symlink_to(root / "train/ape/ape_1.png")
    sets = {name: open_source(str(tmp_path / name)) for name in ("classes", "mixed", "files")}
    assert {name: (len(source.splits["train"]), source.classes) for name, source in sets.items()} == {
        "classes": (4, ("ape", "dog")),
        "mixed": (9, ("ape", "bee", "cow")),
        "files": (1, ("ape",)),
    }
    (tmp_path / "mixed/test").symlink_to("train")
    with pytest.raises(ValueError, match=r"mixed/train and .*mixed/test are one and the same folder"):
        open_source(str(tmp_path / "mixed"))
    (tmp_path / "classes/cat").symlink_to("gone")
    with pytest.raises(ValueError, match="classes/cat is a link to gone, which is not there"):
        open_source(str(tmp_path / "classes"))


@pytest.mark.parametrize("names", [("Train", "Val", "TESTING"), ("training", "dev", "testset")])
def test_splits_in_other_spellings(tmp_path, names):
    root = tree(tmp_path / "set", [f"{split}/{label}/{i}.png" for split in names for label in "ab" for i in range(2)])
    (root / names[0] / "none").mkdir()
    source = open_source(str(root))
    assert {split: len(part) for split, part in source.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert source.notes == [f"folders without an image left out: {names[0]}/none"]


def test_other_kinds_of_images_become_png(tmp_path):
    """Under their own names and under that of a JPEG; what cannot be read is refused, or left out by --max-bad."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    for place, (name, kind) in enumerate((("a.ppm", "PPM"), ("b.BMP", "BMP"), ("c.tif", "TIFF"), ("d.jpg", "BMP"))):
        path = tmp_path / "set" / "xy"[place % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, kind)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "set/x/e.gif")
    out = make(str(tmp_path / "set"), tmp_path / "out", layout=Layout(test_fraction=0.3))
    index = open_shards(out)
    decoded = [decode_image(*file) for file in ShardFiles(index).read(np.arange(len(index)))]
    assert index.kinds == {"png"}
    assert all((image == pixels).all() or (image == pixels[..., :1]).all() for image in decoded)
    Image.fromarray(pixels).save(
        tmp_path / "set/x/f.tif", "TIFF", save_all=True, append_images=[Image.fromarray(pixels)]
    )
    with pytest.raises(BadImage, match=r"x-f.*the TIFF has 2 pages .*--max-bad"):
        make(str(tmp_path / "set"), tmp_path / "more")
    (tmp_path / "set/x/g.avif").write_bytes(b"\0\0\0\x1cftypavif" + bytes(50))
    more = make(str(tmp_path / "set"), tmp_path / "more", layout=Layout(max_bad=2, test_fraction=0.3))
    assert len(json.loads((more / "recipe.json").read_text())["left_out"]) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png"], "a.png lies in no class folder"),
        (["train/a.png"], "train/a.png lies in no class folder"),
        (["train/ape/a.png", "ape/b.png"], "ape/b.png lies beside train, which are splits"),
        (["train/ape/a.png", "test/bee/a.png"], r"test has classes that train lacks \(bee\)"),
        (["test/ape/a.png"], "holds no training image.*only those of test"),
        (["train/ape/a.png", "val/ape/a.png", "Validation/ape/b.png"], "Validation and val would both be val"),
        (["my_train/ape/a.png", "my_test/ape/b.png"], "my_test, my_train may be splits or classes; rename them"),
        (["set/eval/ape/a.png", "set/other/ape/b.png"], r"'eval' does not say clearly which split it is"),
        (["a\nb/a.png", "c/b.png"], r"a class is named 'a\\nb'"),
        (["0.tar", "1.tar"], "shards need no making"),
        (["ape/a.txt"], "holds no training image"),
    ],
)
def test_a_folder_that_says_no_class_is_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        open_source(str(tree(tmp_path / "set", names)))


def test_a_compressed_tar_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ValueError, match="no whole, uncompressed tar"):
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
        ({"y_train": np.full(20, 300_000_000)}, "has the label 300000000, more than images"),
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
