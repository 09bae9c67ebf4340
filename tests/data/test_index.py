import dataclasses
import gc
import json
import multiprocessing
import pickle

import numpy as np
import pytest

from vitexp.data.info import open_splits, verify
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import index_shards, open_shards, read_document
from vitexp.data.shards.layout import BadShard, find_shards


def test_a_set_without_index_gets_one_on_first_use(tmp_path, make_set) -> None:
    make_set(tmp_path, train=[[0, 1, 2], [2, 2]], test=[[1]])
    index = open_shards(tmp_path, "train")
    assert (len(index), index.labels.tolist(), index.classes, index.splits) == (
        5,
        [0, 1, 2, 2, 2],
        3,
        ("train", "test"),
    )
    assert index.starts.tolist() == [0, 3, 5]
    assert index.shard_of(np.arange(5)).tolist() == [0, 0, 0, 1, 1]
    assert index.image_size == (4, 4)
    assert sorted(p.name for p in tmp_path.glob("toy*.index.*")) == [
        f"toy-{split}.index.{kind}" for split in ("test", "train") for kind in ("json", "npy")
    ]


def test_the_shard_list_has_the_public_shape(digits) -> None:
    document = json.loads((digits / "digits-train.index.json").read_text())
    assert (document["__kind__"], document["wids_version"]) == ("wids-shard-index-v1", 1)
    assert [shard["url"] for shard in document["shardlist"]] == sorted(p.name for p in digits.glob("*-train-*.tar"))
    assert [shard["filesize"] for shard in document["shardlist"]] == [
        (digits / shard["url"]).stat().st_size for shard in document["shardlist"]
    ]
    assert sum(shard["nsamples"] for shard in document["shardlist"]) == 1438


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_labels_and_keys_agree_with_webdataset(digits) -> None:
    import webdataset

    from vitexp.data.shards.scan import key_hash

    index = open_shards(digits, "train")
    urls = [str(digits / shard.name) for shard in index.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert index.labels.tolist() == [int(sample["cls"]) for sample in samples]
    assert index.keys.tolist() == [key_hash(sample["__key__"]) for sample in samples]
    gc.collect()  # so that the warning about its files falls here


def test_class_names_come_from_the_file_beside_the_shards(tmp_path, make_set) -> None:
    index = open_shards(make_set(tmp_path, classes=5, train=[[0, 1]]))
    assert (index.classes, index.class_names[4]) == (5, "class 4")


def test_classes_are_counted_over_all_splits(tmp_path, make_set) -> None:
    make_set(tmp_path, train=[[0, 1]], test=[[3]])
    assert open_shards(tmp_path, "train").classes == open_shards(tmp_path, "test").classes == 4


def test_a_label_beyond_the_class_names_is_refused(tmp_path, make_set) -> None:
    with pytest.raises(BadShard, match=r"'train000x0001' of train has the label 7, .*class names has 3"):
        open_shards(make_set(tmp_path, classes=3, train=[[0, 7]]))
    assert not list(tmp_path.glob("*.index.json"))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_key_in_two_shards_is_refused(tmp_path, write_tar, png) -> None:
    for number in range(2):
        write_tar(tmp_path / f"x-train-{number}.tar", [("same.png", png()), ("same.cls", b"0")])
    with pytest.raises(BadShard, match=r"x-train-0\.tar and x-train-1\.tar share a key"):
        open_shards(tmp_path)


def test_duplicates_are_found_in_parts_too(tmp_path, make_set, monkeypatch) -> None:
    make_set(tmp_path, train=[[0] * 50, [1] * 50, [0] * 30])
    (tmp_path / "toy-train-000003.tar").write_bytes((tmp_path / "toy-train-000001.tar").read_bytes())
    monkeypatch.setattr("vitexp.data.shards.index._SORTED_KEYS", 10)
    monkeypatch.setattr("vitexp.data.shards.index._CHUNK_ROWS", 7)
    with pytest.raises(BadShard, match=r"000001\.tar and toy-train-000003\.tar share a key"):
        index_shards(tmp_path)


def test_the_fingerprint_does_not_depend_on_how_it_is_computed(tmp_path, make_set, monkeypatch) -> None:
    before = open_shards(make_set(tmp_path, train=[[0] * 5, [1] * 6])).fingerprint
    monkeypatch.setattr("vitexp.data.shards.index._CHUNK_ROWS", 2)
    index_shards(tmp_path, workers=1)
    assert open_shards(tmp_path).fingerprint == before
    make_set(tmp_path, train=[[0] * 5, [1] * 5 + [0]])
    index_shards(tmp_path)
    assert open_shards(tmp_path).fingerprint != before


def test_other_images_under_the_same_keys_and_labels_have_another_fingerprint(tmp_path, write_tar, png) -> None:
    found = set()
    for value in (0, 1):
        write_tar(tmp_path / "x-train-0.tar", [("a.png", png(value)), ("a.cls", b"0")])
        index_shards(tmp_path)
        found.add(open_shards(tmp_path).fingerprint)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("names", "name", "splits"),
    [
        (["a-b-train-000000.tar", "a-b-test-000000.tar"], "a-b", {"train": 1, "test": 1}),
        (["s-train-0000.tar", "s-train-0001.tar", "s-validation-0000.tar"], "s", {"train": 2, "val": 1}),
        (["00000.tar", "00001.tar"], "here", {"train": 2}),
    ],
)
def test_splits_are_told_by_the_names(tmp_path, names, name, splits) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for file in names:
        (folder / file).touch()
    found = find_shards(folder)
    assert (found.name, {word: len(tars) for word, tars in found.splits.items()}) == (name, splits)


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path, make_set) -> None:
    with pytest.raises(ValueError, match=r"there is no directory .*/gone; make one with `vitexp shards make SOURCE"):
        open_shards(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"holds no shards .*vitexp shards make"):
        open_shards(tmp_path)
    make_set(tmp_path, train=[[0]])
    with pytest.raises(ValueError, match="has no split 'test'; it has train"):
        open_shards(tmp_path, "test")
    (tmp_path / "other-train-000000.tar").touch()
    with pytest.raises(
        ValueError, match=r"2 sets, by the names of other-train-000000\.tar, toy.*a directory of its own"
    ):
        open_shards(tmp_path)


def test_changed_shards_are_noticed_when_they_are_opened(tmp_path, make_set) -> None:
    open_shards(make_set(tmp_path, train=[[0], [1]]))
    shard = tmp_path / "toy-train-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    with pytest.raises(BadShard, match=rf"{shard.name} was {len(content)} bytes when it was indexed and is"):
        open_shards(tmp_path)
    shard.unlink()
    with pytest.raises(
        BadShard, match=rf"{shard.name} was {len(content)} bytes .* and is absent; make the index again"
    ):
        open_shards(tmp_path)
    shard.write_bytes(content)
    make_set(tmp_path, train=[[0], [1], [1]])
    with pytest.raises(BadShard, match=r"000002\.tar was absent when it was indexed"):
        open_shards(tmp_path)


@pytest.mark.parametrize(
    "change", ["{}", "[]", "", "nonsense", "kind", "images", "shardlist", "nsamples", "size", "url", "\0"]
)
def test_a_damaged_shard_list_is_named(tmp_path, make_set, change) -> None:
    open_shards(make_set(tmp_path, train=[[0, 1]]))
    path = tmp_path / "toy-train.index.json"
    document = json.loads(path.read_text())
    if change == "kind":
        document["__kind__"] = "other"
    elif change == "images":
        document["images"] = 3
    elif change == "shardlist":
        document["shardlist"] = [1]
    elif change == "nsamples":
        document["shardlist"][0]["nsamples"] = "2"
    elif change == "size":
        document["smallest_image"] = [1]
    elif change == "url":
        document["shardlist"][0]["url"] = ""
    else:
        document = None
    path.write_text(json.dumps(document) if document is not None else change)
    with pytest.raises(BadShard, match=r"toy-train\.index\.json is no .*index.*vitexp shards index"):
        open_shards(tmp_path)


def test_a_damaged_table_is_named(tmp_path, make_set) -> None:
    open_shards(make_set(tmp_path, train=[[0, 1]]))
    path = tmp_path / "toy-train.index.npy"
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[:-1], b"x" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(BadShard, match=r"toy-train\.index\.npy .*vitexp shards index"):
            open_shards(tmp_path)
    np.save(path, np.zeros(2))
    with pytest.raises(BadShard, match="does not belong to"):
        open_shards(tmp_path)
    np.save(path, np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(BadShard, match="cannot be read"):
        open_shards(tmp_path)
    changed = bytearray(whole)
    changed[-5] ^= 1  # the label of the last sample
    changed[-8] ^= 1
    path.write_bytes(changed)
    with pytest.raises(BadShard, match="is damaged"):
        open_shards(tmp_path)


def test_an_index_travels_to_another_process_by_its_name(digits) -> None:
    index = open_shards(digits, "train")
    data = pickle.dumps(index)
    assert len(data) < 1000
    assert pickle.loads(data).labels.tolist() == index.labels.tolist()  # noqa: S301


def _open(folder: str, results) -> None:
    results.put(len(open_shards(folder)))


def test_an_index_that_cannot_be_written_is_named(tmp_path, make_set) -> None:
    make_set(tmp_path, train=[[0]])
    (tmp_path / "toy-train.index.tmp").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"the index of .* cannot be written \(.*No space left"):
        open_shards(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_ranks_that_open_at_once_make_one_index(tmp_path, make_set) -> None:
    make_set(tmp_path, train=[[0] * 200, [1] * 200])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_open, args=(tmp_path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=600) for _ in processes] == [400] * 4
    for process in processes:
        process.join(timeout=600)
        assert process.exitcode == 0


def test_no_memory_is_taken_on_the_word_of_a_label(tmp_path, write_tar, png) -> None:
    members = [(f"{i}.{e}", png(i) if e == "png" else b"0") for i in range(9) for e in ("png", "cls")]
    members[9] = ("4.cls", b"300000000")
    write_tar(tmp_path / "x-train-0.tar", members)
    with pytest.raises(BadShard, match=r"x-train-0\.tar: sample '4' has the label 300,000,000, of 9 images"):
        open_shards(tmp_path)
    members[9] = ("4.cls", b"999")  # a few images of a thousand classes are a set
    write_tar(tmp_path / "x-train-0.tar", members)
    index_shards(tmp_path)
    assert open_shards(tmp_path).classes == 1000


def test_the_same_shard_in_two_splits_is_refused(tmp_path, make_set) -> None:
    make_set(tmp_path, train=[[0, 1], [0, 1]])
    (tmp_path / "toy-test-000000.tar").write_bytes((tmp_path / "toy-train-000001.tar").read_bytes())
    with pytest.raises(BadShard, match=r"train-000001\.tar \(train\) and toy-test-000000\.tar \(test\) have the same"):
        open_shards(tmp_path)


def test_names_of_classes_that_change_after_indexing_are_noticed(tmp_path, make_set) -> None:
    make_set(tmp_path, classes=2, train=[[0, 1]], test=[[1]])
    assert open_shards(tmp_path).class_names == ("class 0", "class 1")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(BadShard, match=r"names of the classes have changed .*make the index again"):
        open_shards(tmp_path)
    index_shards(tmp_path)
    assert open_shards(tmp_path).class_names == ("cat", "dog")


def test_shards_in_folders_are_read_and_checked_by_their_paths(tmp_path, make_set) -> None:
    """As VTAB is published: a folder a split, the same keys in each, the names in classnames.txt."""
    folder = make_set(tmp_path, train=[[0, 1, 0]], test=[[1]])
    for split in ("train", "test"):
        (folder / split).mkdir()
        (folder / f"toy-{split}-000000.tar").rename(folder / split / "0.tar")
    (folder / "classnames.txt").write_text("cat\ndog\n")
    index = open_shards(folder)
    assert (len(index), index.class_names, index.shards[0].name) == (3, ("cat", "dog"), "train/0.tar")
    assert [len(file.data) for file in ShardFiles(index).read(np.arange(3))] == index.table["length"].tolist()
    assert not verify(open_splits(folder)).problems
    document = folder / f"{folder.name}-train.index.json"
    for name in ("../0.tar", "/0.tar", "train/../../0.tar", "a\\\\0.tar"):
        (folder / "x-train.index.json").write_text(document.read_text().replace("train/0.tar", name))
        with pytest.raises(BadShard, match="no whole index"):
            read_document(dataclasses.replace(index.shard_set, name="x"), "train")
