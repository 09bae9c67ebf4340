"""Images that vary with the seed of the run: which do, which do not, and what is refused."""

import pytest

from vitexp.data.module import ShardData

FOLLOW = "follow"


@pytest.fixture
def seen(digits):
    def of(split, **options):
        return set(ShardData(shards=str(digits), **options).samples(split).tolist())

    return of


def test_the_training_subset_follows_the_seed_and_the_validation_slice_does_not(seen):
    options = {"train_images": 100, "subset_seed": FOLLOW}
    first, second = (seen("train", **options, seed=seed) for seed in (0, 1))
    assert first != second
    assert second == seen("train", train_images=100, subset_seed=1, seed=9)
    assert second < seen("train", train_images=300, subset_seed=FOLLOW, seed=1)
    assert seen("val", **options, seed=1) == seen("val")
    assert seen("test", **options, seed=1) == seen("test")


def test_the_validation_slice_follows_the_seed_and_its_rest_is_trained_on(seen):
    held = {seed: seen("val", val_seed=FOLLOW, seed=seed) for seed in (0, 1)}
    assert held[0] == seen("val", seed=5)
    assert held[1] == seen("val", val_seed=1)
    assert held[0] != held[1]
    assert len(held[0]) == len(held[1])
    rest = seen("train", val_seed=FOLLOW, seed=1)
    assert not rest & held[1]
    assert rest | held[1] == seen("train", val_fraction=0.0)
    assert seen("train", train_images=50, val_seed=FOLLOW, seed=1) < rest
    assert seen("test", val_seed=FOLLOW, seed=1) == seen("test")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subset_seed": "seed", "train_images": 50}, "data.subset_seed is 'seed'; allowed: a whole number, or follow"),
        ({"val_seed": True}, "data.val_seed is True; allowed: a whole number, or follow"),
        ({"subset_seed": FOLLOW}, "data.subset_seed is follow, but all images are trained on; set data.train_images"),
        ({"val_seed": FOLLOW, "val_fraction": 0.0}, "data.val_seed is follow, but no images of digits are held out"),
    ],
)
def test_a_seed_that_is_none_or_without_effect_is_refused(digits, options, words):
    with pytest.raises(ValueError, match=words):
        ShardData(shards=str(digits), **options).opened  # noqa: B018


def test_a_set_with_validation_images_of_its_own_draws_none(tmp_path, make_set):
    shards = str(make_set(tmp_path, classes=2, train=[[0, 1] * 10], val=[[0, 1]]))
    with pytest.raises(ValueError, match="val_seed is follow, but no images of toy are held out of train"):
        ShardData(shards=shards, val_seed=FOLLOW).opened  # noqa: B018
