"""Data that know a published size alone count as real shards do, refuse the same options, and cannot be trained on."""

import re

import pytest

from vitexp import cli
from vitexp.data import write
from vitexp.data.module import ShardData
from vitexp.data.published_sizes import SIZES, PublishedData, Size

COUNTS = ("train_count", "val_count", "test_count", "steps_per_epoch", "classes", "size")
WORDS = ["fit", "--model.arch=micro/4", "--trainer.max_epochs=1", "--run.wandb=off", "--data.shards=shards/cifar10"]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The real shards of a set, and its published size under another name."""
    monkeypatch.chdir(tmp_path)
    write.make("digits", tmp_path / "shards" / "digits")
    real = ShardData(shards="shards/digits", val_fraction=0.0)
    monkeypatch.setitem(SIZES, "known", Size(real.train_count, real.test_count, real.classes, real.size))


@pytest.mark.parametrize(
    "options",
    [{}, {"val_fraction": 0.15, "batch_size": 7}, {"train_images": 100}, {"train_fraction": 0.3, "image_size": 16}],
)
def test_counts_are_those_of_the_real_set(options, digits):
    real = ShardData(shards="shards/digits", **options)
    stand_in = PublishedData(shards="./shards/known/", **options)
    assert {name: getattr(stand_in, name) for name in COUNTS} == {name: getattr(real, name) for name in COUNTS}
    assert real.describe().keys() == stand_in.describe().keys()
    assert stand_in.describe()["shards_fingerprint"] == "published size of known"
    assert stand_in.published.startswith("./shards/known/ is not here: costed from its published size (")


@pytest.mark.parametrize(
    "options",
    [{"val_fraction": 1.0}, {"train_images": 10**6}, {"train_images": 3}, {"train_fraction": 2.0}, {"image_size": 0}],
)
def test_what_the_real_set_refuses_is_refused(options, digits):
    with pytest.raises(ValueError, match=r"^data\.|^a training subset of 3 images") as real:
        ShardData(shards="shards/digits", **options)
    with pytest.raises(ValueError, match=f"^{re.escape(str(real.value))}$"):
        PublishedData(shards="shards/known", **options)


def test_the_size_of_pictures_must_be_given_where_they_have_none_in_common(digits):
    with pytest.raises(ValueError, match=r"imagenet are not all squares of one size; set data\.image_size"):
        PublishedData(shards="shards/imagenet")


def test_shards_that_are_there_are_used_and_a_size_alone_trains_nothing(digits):
    real = PublishedData(shards="shards/digits")
    assert not real.published
    assert real.describe() == ShardData(shards="shards/digits").describe()
    with pytest.raises(ValueError, match="there are no images to train on or to measure"):
        PublishedData(shards="shards/known").train_dataloader()


def test_an_estimate_skips_the_check_of_shots_and_changes_no_later_plan(digits):
    words = [*WORDS, "--run.shots=[5]", "--data.train_images=20"]
    assert cli.estimate(words)["images_seen"] == 20
    with pytest.raises(ValueError, match="there is no directory shards/cifar10"):
        cli.plan(words)
    here = [*WORDS, "--data.shards=shards/digits"]
    assert cli.estimate(here) == cli.plan(here) | {"published": ""}
