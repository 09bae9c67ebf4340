"""Sources say what they hold, and a held-out set depends on keys alone."""

import numpy as np
import pytest

from vitexp.data.sources.named import digits, open_source
from vitexp.data.sources.source import Source, Split, hold_out


def split_of(labels, prefix="k"):
    labels = np.asarray(labels, np.int64)
    return Split(keys=[f"{prefix}{i}" for i in range(len(labels))], labels=labels, read=lambda i: b"%d" % i)


def test_digits_are_the_published_images_scaled_to_bytes():
    from sklearn.datasets import load_digits

    table, source = load_digits(), digits()
    assert source.classes == tuple("0123456789")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 1438, "test": 359}
    for split in source.splits.values():
        for i in range(0, len(split), 97):
            number = int(split.keys[i])
            assert split.labels[i] == table.target[number]
            np.testing.assert_array_equal(split.read(i), np.round(table.images[number] * 255 / 16))


def test_held_out_images_do_not_depend_on_the_images_around_them():
    whole = split_of([0] * 50 + [1] * 50)
    fewer = whole.take(np.arange(0, 100, 2))
    held = set(hold_out(whole, 0.2)[1].keys)
    assert len(held) == 20
    assert 0 < len(held & set(fewer.keys)) < 20
    assert held & set(fewer.keys) <= set(hold_out(fewer, 0.4)[1].keys)  # both take the lowest ten ranks of a class
    assert held != set(hold_out(whole, 0.2, seed=1)[1].keys)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.99])
def test_holding_out_takes_its_share_of_every_class_and_leaves_some(fraction):
    labels = [0] * 1000 + [1] * 37 + [2] * 2
    kept, held = hold_out(split_of(labels), fraction)
    assert sorted(kept.keys + held.keys) == sorted(split_of(labels).keys)
    for label, count in ((0, 1000), (1, 37), (2, 2)):
        expected = min(max(round(count * fraction), 1), count - 1)
        assert (held.labels == label).sum() == expected
    assert [kept.read(i) for i in range(3)] == [b"%d" % int(key[1:]) for key in kept.keys[:3]]


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 0, 3], "labels run from 0 to 3"), ([-1, 0], "from -1 to 0"), ([], "no image")]
)
def test_labels_must_have_a_class(labels, message):
    with pytest.raises(ValueError, match=message):
        Source(name="s", classes=("a", "b", "c"), splits={"train": split_of(labels)})


def test_keys_are_unique_over_all_splits():
    with pytest.raises(ValueError, match="occurs twice"):
        Source(name="s", classes=("a",), splits={"train": split_of([0]), "test": split_of([0])})


def test_one_image_cannot_be_held_out_of():
    with pytest.raises(ValueError, match="label 1 has one image"):
        hold_out(split_of([0, 0, 1]), 0.5)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        hold_out(split_of([0, 0]), 1.0)


def test_an_unknown_word_gets_the_words_there_are():
    with pytest.raises(ValueError, match=r"'digit' .* digits"):
        open_source("digit")


def test_a_folder_with_one_tar_and_its_notes_is_that_tar(tmp_path, write_tar, png):
    write_tar(tmp_path / "pets.tar", [(f"{c}/{i}.png", png(i)) for c in ("cat", "dog") for i in range(3)])
    (tmp_path / "README.md").write_text("two classes")
    source = open_source(str(tmp_path))
    assert (source.name, source.classes) == ("pets", ("cat", "dog"))
