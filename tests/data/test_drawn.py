"""Drawn sets: keyed, balanced, the same bytes everywhere, and with the answers that are planted in them."""

import hashlib

import numpy as np
import pytest
import torch

from vitexp import cli
from vitexp.data.module import ShardData
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.write import make
from vitexp.data.sources import shapes
from vitexp.data.sources.drawn import SETS, drawn
from vitexp.data.sources.named import open_source
from vitexp.nn.config import ViTConfig
from vitexp.nn.vit import ViT

NAMES = sorted(SETS)


def pictures(split, rows):
    return np.stack([split.read(int(i)) for i in rows])


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_in_a_set_of_any_size(name):
    small, large = drawn(name, "train=12,test=40"), drawn(name, "train=5000,test=100000")
    for split in ("train", "test"):
        few, many = small.splits[split], large.splits[split]
        assert list(few.keys) == list(many.keys)[: len(few)]
        np.testing.assert_array_equal(few.labels, many.labels[: len(few)])
        np.testing.assert_array_equal(pictures(few, range(12)), pictures(many, range(12)))


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_balanced_and_named(name):
    source = drawn(name)
    for split in source.splits.values():
        assert set(np.bincount(split.labels)) == {len(split) / len(source.classes)}
    assert len(source.splits["test"]) >= 2000


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_seeds_share_no_picture(name):
    sources = [drawn(name, "train=200,test=200"), drawn(name, "train=200,test=200,seed=1")]
    found = [
        one.tobytes() for source in sources for split in source.splits.values() for one in pictures(split, range(200))
    ]
    assert len(set(found)) == len(found) == 800


def test_the_pictures_are_those_that_were_published():
    """Numbers in tables are about these very bytes: who changes them makes another data set, with a new name."""
    found = {
        name: digest(pictures(drawn(name).splits["train"], range(40)), pictures(drawn(name).splits["test"], [0, 1999]))
        for name in NAMES
    }
    assert found == {
        "drawn-digits": "a9d5610d29d43b33",
        "drawn-what": "68c88ca017ef316b",
        "drawn-where": "eee359192c727ea9",
    }


def test_the_shapes_are_those_of_the_script_that_made_them_before():
    """By the arrays in the files that experiments/make_shapes.py wrote."""
    found = {}
    for name in shapes.SETS:
        splits = open_source(name).splits
        found[name] = digest(
            *(part for s in ("train", "test") for part in (pictures(splits[s], range(1000)), splits[s].labels))
        )
    assert found == {
        "shapes-what": "2cffa96b979d9bf7",
        "shapes-where": "13bacdad70e40267",
        "shapes-count": "1e07d20d8d4965cf",
    }


@pytest.mark.parametrize("workers", [2, 5])
def test_shards_do_not_depend_on_the_number_of_workers(workers, tmp_path):
    source = "drawn-where@train=90,test=40"
    one, other = make(source, tmp_path / "one", workers=1), make(source, tmp_path / "other", workers=workers)
    names = sorted(path.name for path in one.glob("*.tar"))
    assert names == ["drawn-where-test-000000.tar", "drawn-where-train-000000.tar"]
    assert [(one / name).read_bytes() for name in names] == [(other / name).read_bytes() for name in names]


def test_a_drawn_set_is_embedded_like_the_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ShardData(shards="drawn-where", val_fraction=0.0)
    assert (data.name, data.classes, data.train_count, data.test_count, data.size) == ("drawn-where", 2, 2400, 4000, 16)
    assert cli.main(["shards", "make", "drawn-where@train=100,test=50,seed=3", "mine"]) == 0
    assert [len(open_shards(tmp_path / "mine", split)) for split in ("train", "test")] == [100, 50]
    assert open_shards(tmp_path / "mine").name == "drawn-where-seed3"


@pytest.mark.parametrize(
    ("options", "message"),
    [("train=9", "train is 9; give 10"), ("test=10000001", "to 10000000"), ("size=3", "size=3 is none of train=N"),
     ("seed=-1", "seed=-1"), ("train", "train= is none"), ("train=1e3", "train=1e3")],
)  # fmt: skip
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        open_source(f"drawn-digits@{options}")


# The answers that are planted.


def answers(images, pos_embed, patch, pool):
    """The logits of a network with every parameter away from its start."""
    torch.manual_seed(0)
    config = ViTConfig(arch=f"micro/{patch}", image_size=16, classes=2, pos_embed=pos_embed, pool=pool)
    network = ViT(config).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.03 * torch.randn_like(parameter))
    floats = torch.from_numpy(images).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    with torch.no_grad():
        return network(floats)


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_without_positions_a_network_answers_1_in_2_whatever_its_weights(patch, pool):
    split = drawn("drawn-where").splits["test"]
    count = 16 if patch == 1 else 80
    found = answers(pictures(split, range(count)), "none", patch, pool).unflatten(0, (-1, 2))
    torch.testing.assert_close(found, found[:, :1].expand_as(found), atol=1e-5, rtol=0)
    right = found[:, :1].expand_as(found).argmax(-1).flatten() == torch.from_numpy(split.labels[:count])
    assert right.double().mean() == 0.5
    assert (found[:, 0].std(0) > 1e-3).all()  # it does look at the picture


@pytest.mark.parametrize("pos_embed", ["1d", "2d", "relative", "sincos2d", "rope"])
def test_with_positions_the_two_answers_differ(pos_embed):
    split = drawn("drawn-where").splits["test"]
    found = answers(pictures(split, range(40)), pos_embed, 4, "cls").unflatten(0, (-1, 2))
    assert (found - found[:, :1])[:, 1:].abs().amax(-1).min() > 1e-4


def test_patches_that_do_not_divide_a_field_would_give_the_place_away():
    """What the test of invariance would see, if pictures were moved by one pixel."""
    split = drawn("drawn-where").splits["test"]
    moved = np.roll(pictures(split, range(40)), 1, axis=2)
    found = answers(moved, "none", 4, "cls").unflatten(0, (-1, 2))
    assert (found - found[:, :1]).abs().max() > 1e-3


def test_where_the_digit_is_can_be_seen_but_not_always():
    """The field of the largest variance, as a reader of pictures without a network would say."""
    split = drawn("drawn-where").splits["test"]
    fields = pictures(split, range(1000)).reshape(1000, 2, 8, 2, 8).transpose(0, 1, 3, 2, 4).reshape(1000, 4, 64)
    accuracy = (fields[:, [0, 3]].astype(float).var(-1).argmax(-1) == split.labels[:1000]).mean()
    assert 0.7 < accuracy < 0.97


def test_what_the_digit_is_says_nothing_of_where_it_is():
    """The contrast within each field, class by class: as far from the mean of all as chance would have it."""
    split = drawn("drawn-what").splits["train"]
    fields = pictures(split, range(3000)).reshape(3000, 3, 8, 3, 8).transpose(0, 1, 3, 2, 4).reshape(3000, 9, 64)
    spread = fields.astype(float).std(-1)
    by_class = np.stack([spread[split.labels == label] for label in range(10)])
    against_own = by_class.mean(1) - by_class.mean((1, 2))[:, None]
    shift = against_own - (spread.mean(0) - spread.mean())
    error = spread.std() / np.sqrt(300)
    assert np.abs(shift).max() < 4 * error


@pytest.mark.parametrize(("name", "low", "high"), [("drawn-digits", 0.5, 0.95), ("drawn-what", 0.1, 0.3)])
def test_a_nearest_neighbour_is_above_chance_and_below_the_ceiling(name, low, high):
    source = drawn(name)
    train, test = (pictures(source.splits[s], range(1000)).reshape(1000, -1).astype(float) for s in ("train", "test"))
    train, test = ((one - one.mean(1, keepdims=True)) / one.std(1, keepdims=True) for one in (train, test))
    nearest = source.splits["train"].labels[:1000][(test @ train.T).argmax(1)]
    accuracy = (nearest == source.splits["test"].labels[:1000]).mean()
    assert low < accuracy < high
