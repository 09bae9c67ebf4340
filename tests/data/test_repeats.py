"""Repeated augmentation: each image as often as asked, within a step, each time as another view."""

from collections import Counter

import numpy as np
import pytest
import torch

from vitexp.data.batch import Batches
from vitexp.data.module import ShardData
from vitexp.data.order import EpochOrder

OPTIONS = {"train_images": 200, "batch_size": 60, "augment": "crop_flip", "seed": 3, "repeats": 3}


def batches_of(data, epochs):
    found = data.train_dataloader()._batches
    return [[found[epoch, step] for step in range(len(found))] for epoch in range(epochs)]


def test_three_epochs_hold_each_image_three_times_and_each_epoch_a_third_of_them(digits):
    data = ShardData(shards=str(digits), **OPTIONS)
    epochs = batches_of(data, 6)
    seen = [Counter(int(s) for batch in epoch for s in batch.samples) for epoch in epochs]
    assert [sum(counts.values()) for counts in seen] == [200] * 6
    assert all(len(counts) in (67, 68) for counts in seen)
    for group in (seen[:3], seen[3:]):
        assert sum(group, Counter()) == Counter({int(s): 3 for s in data.samples("train")})
    assert seen[0] != seen[3]
    first = epochs[0][0]
    assert len(set(first.samples.tolist())) == 20


def test_the_times_of_an_image_are_other_views_and_neighbours_are_other_images(digits):
    (first, *_), *_ = batches_of(ShardData(shards=str(digits), mix="mixup", **OPTIONS), 1)
    pairs = first.samples.reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    times = first.samples.reshape(3, 20)
    assert torch.equal(times[0], times[1])
    assert torch.equal(times[0], times[2])
    views = first.images.reshape(3, 20, -1)
    assert (views[0] != views[1]).any(1).float().mean() > 0.8
    shares = first.recipe.share.reshape(3, 20)
    assert (shares[0] != shares[1]).all()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_same_global_batches(digits, ranks):
    data = ShardData(shards=str(digits), mix="cutmix", **OPTIONS)
    whole = data.train_dataloader()._batches
    parts = [Batches(whole.index, whole.reader, whole.order, 60, r, ranks, "cutmix", whole.how) for r in range(ranks)]
    for step in range(4):
        together = [part[2, step] for part in parts]
        assert torch.equal(torch.cat([one.images for one in together]), whole[2, step].images)
        assert torch.equal(torch.cat([one.recipe.boxes for one in together]), whole[2, step].recipe.boxes)


def test_windows_are_announced_where_the_images_lie():
    """Of an order in several windows; the reader is told the shards of what it is then asked for."""
    order = EpochOrder(np.arange(64), np.arange(0, 65, 4), 0, window=16)
    for epoch in range(4):
        for start in range(0, 64, 8):
            samples, times = order.repeated(epoch, start, start + 8, 2)
            assert sorted(Counter(samples.tolist()).values()) == [2] * 4
            assert times.tolist() == [0] * 4 + [1] * 4
            group, place = order.group(epoch, start, 2)
            assert set(samples // 4) <= set(order.shards(group, order.window_of(place)).tolist())


def test_once_is_the_order_itself():
    order = EpochOrder(np.arange(50), np.array([0, 50]), 4)
    for epoch in (0, 3):
        samples, times = order.repeated(epoch, 10, 30, 1)
        np.testing.assert_array_equal(samples, order.samples(epoch, 10, 30))
        assert not times.any()
