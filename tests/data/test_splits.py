"""Every tar of a directory is taken into the split that its name says, or is refused by name."""

import pytest

from vitexp.data.shards.layout import find_shards, spelled


def put(folder, *names: str):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("names", "stem", "splits"),
    [
        (["train-000000.tar", "train-000001.tar", "val-000000.tar", "test-000000.tar"], "here", (2, 1, 1)),
        (["Train_0.tar", "Train_1.TAR", "TEST_0.tar"], "here", (2, 0, 1)),
        (["training0.tar", "testing0.tar", "validation0.tar"], "here", (1, 1, 1)),
        (["trainset-a.tar", "testset-a.tar", "dev-a.tar"], "here", (1, 1, 1)),
        (["train/0.tar", "train/1.tar", "test/0.tar"], "here", (2, 0, 1)),
        (["data/train-00000-of-00002.tar", "data/train-00001-of-00002.tar", "data/valid-00000-of-00001.tar"],
         "data", (2, 1, 0)),
        (["imagenet1k_2012.train.00.tar", "imagenet1k_2012.train.01.tar"], "imagenet1k_2012", (2, 0, 0)),
        (["imagenetTrain-00.tar", "imagenetVal-00.tar"], "imagenet", (1, 1, 0)),
        (["cub-train-part1.tar", "cub-train-part2.tar", "cub-test-part1.tar"], "cub", (2, 0, 1)),
        (["test-train-000000.tar", "test-test-000000.tar"], "test", (1, 0, 1)),  # a set that is called test
        (["train/pets-train-0.tar", "val/pets-val-0.tar"], "here", (1, 1, 0)),
        (["latest-0.tar", "latest-1.tar"], "here", (2, 0, 0)),
        (["00000.tar", "00001.tar", "._00000.tar", ".cache/x.tar", "__MACOSX/0.tar", "00000.parquet"], "here",
         (2, 0, 0)),
    ],
)  # fmt: skip
def test_names_that_say_their_split(tmp_path, names, stem, splits) -> None:
    found = find_shards(put(tmp_path / "here", *names))
    assert found.name == stem
    assert tuple(len(found.splits.get(split, ())) for split in ("train", "val", "test")) == splits


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["x-train-0.tar", "x-eval-0.tar"], r"'x-eval-0' does not say clearly which split it is \(eval\); rename it"),
        (
            ["test/x-0.tar", "val/x-train-1.tar"],
            r"'val/x-train-1' does not say clearly which split it is \(val, train\)",
        ),
        (["trainval-0.tar", "test-0.tar"], "'trainval-0' does not say clearly"),
        (["x-train-0.tar", "x-0.tar"], r"the name of x-0\.tar says no split, those of others do; rename them"),
        (["train-0.tar", "constraints/0.tar"], "the name of constraints/0.tar says no split"),
        (["x-train-0.tar", "x-train-extra-0.tar"], r"2 sets, by the names of x-train-0\.tar, x-train-extra-0\.tar"),
        (["cifar10-train-0.tar", "cifar100-train-0.tar"], "2 sets"),
        (["mytrain-0.tar", "mytest-0.tar"], r"2 sets, by the names of mytest-0\.tar, mytrain-0\.tar"),
        (["digits/x-train-0.tar", "cifar/x-train-0.tar"], "2 sets"),
        (["train-0.tar", "val-0.tar", "validation-1.tar"], r"val-0\.tar, validation-1\.tar would all be val"),
        (["x-train-0.tar", "x-train-1.tar.gz"], r"x-train-1\.tar\.gz is compressed.*gunzip"),
        (["x-train-0.tgz"], r"x-train-0\.tgz is compressed.*gunzip"),
        (["x-train-0.tar", "x-train-1.tar.part"], "looks like a download that did not end"),
    ],
)
def test_names_that_do_not_are_refused(tmp_path, names, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        find_shards(put(tmp_path, *names))


def test_a_pattern_of_shards_is_no_directory(tmp_path) -> None:
    put(tmp_path, "x-train-0.tar")
    for name in ("x-train-{0..3}.tar", "x-train-0.tar"):
        with pytest.raises(ValueError, match=rf"names shards; give the directory that holds them, {tmp_path}"):
            find_shards(tmp_path / name)


def test_links_are_followed_and_what_they_would_count_twice_is_refused(tmp_path) -> None:
    put(tmp_path, "all/0.tar", "all/1.tar", "other/0.tar", "set/train-0.tar")
    (tmp_path / "set/test-0.tar").symlink_to("../all/1.tar")
    (tmp_path / "set/val").symlink_to("../other")
    found = find_shards(tmp_path / "set")
    assert [len(found.splits[split]) for split in ("train", "val", "test")] == [1, 1, 1]
    (tmp_path / "set/train-1.tar").symlink_to("test-0.tar")
    with pytest.raises(ValueError, match=r"test-0\.tar and train-1\.tar are one and the same file"):
        find_shards(tmp_path / "set")
    (tmp_path / "set/train-1.tar").unlink()
    (tmp_path / "set/train-1.tar").symlink_to("gone.tar")
    with pytest.raises(ValueError, match=r"train-1\.tar is a link to gone\.tar, which is not there"):
        find_shards(tmp_path / "set")
    (tmp_path / "set/train-1.tar").unlink()
    (tmp_path / "set/test").symlink_to("val")
    with pytest.raises(ValueError, match=r"set/val and .*set/test are one and the same folder"):
        find_shards(tmp_path / "set")
    (tmp_path / "set/test").unlink()
    (tmp_path / "set/val/loop").symlink_to("..")
    with pytest.raises(ValueError, match="one and the same folder"):
        find_shards(tmp_path / "set")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ({"classes.txt": b"cat\n\ndog\n"}, "names no class in line 2"),
        ({"classes.txt": b"\n"}, "names no class in line 1"),
        ({"classes.txt": b"\xff\xfe"}, "is no UTF-8 text"),
        ({"classes.txt": b"cat\n", "classnames.txt": b"dog\n"}, "name different classes"),
    ],
)
def test_files_of_class_names_that_cannot_be_right(tmp_path, lines, reason) -> None:
    for name, content in lines.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        find_shards(put(tmp_path, "0.tar")).class_names()


def test_class_names_are_lines_and_each_is_another(tmp_path) -> None:
    put(tmp_path, "0.tar")
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog \n\n")
    assert find_shards(tmp_path).class_names() == ["cat", "dog"]
    (tmp_path / "classes.txt").write_text("crane\ncat\ncrane\n")  # a bird and a machine
    assert find_shards(tmp_path).class_names() == ["crane (0)", "cat", "crane (2)"]


def test_a_word_is_a_split_only_as_a_whole() -> None:
    assert [spelled(word) for word in ("Train", "TESTING", "devset", "latest", "interval")] == [
        "train", "test", "val", None, None,
    ]  # fmt: skip
