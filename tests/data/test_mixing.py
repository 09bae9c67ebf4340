"""Mixtures are timm's for the same shares, and belong to the pair."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from vitexp.data import mixing
from vitexp.data.augmentation import PLAIN, Augmentation
from vitexp.data.mixing import Recipe, mixed, partners, recipe

RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.normal(size=(8, 3, 12, 16)).astype(np.float32))
LABELS = torch.arange(8)
SAMPLES = RNG.permutation(1000)[:8]


def of_timm(how, cut):
    """timm's pair mode mixes places i and B-1-i; neighbours are brought there and back."""
    from timm.data.mixup import mixup_target

    images, targets = IMAGES.clone(), []
    for i in range(0, 8, 2):
        pair, share = IMAGES[i : i + 2], float(how.share[i])
        top, left, bottom, right = how.boxes[i].tolist()
        if cut:
            images[i : i + 2, :, top:bottom, left:right] = pair.flip(0)[:, :, top:bottom, left:right]
        else:
            images[i : i + 2] = pair * share + pair.flip(0) * (1 - share)
        targets.append(mixup_target(LABELS[i : i + 2], 8, share, 0.0))
    return images, torch.cat(targets)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_it_mixes_as_timm_does(mix):
    how = recipe(mix, SAMPLES, 12, 16, 3, 1)
    images, share = mixed(IMAGES, how), how.share
    expected, targets = of_timm(how, mix == "cutmix")
    torch.testing.assert_close(images, expected)
    one_hot = torch.nn.functional.one_hot
    ours = share[:, None] * one_hot(LABELS, 8) + (1 - share[:, None]) * one_hot(partners(LABELS), 8)
    torch.testing.assert_close(ours, targets)
    assert (images != IMAGES).any((1, 2, 3)).all()


def test_boxes_are_timms_for_the_same_centre(monkeypatch):
    from timm.data.mixup import cutmix_bbox_and_lam

    draws = RNG.random((200, 2))
    shares = RNG.random(200).astype(np.float32)
    for share, draw, box in zip(shares, draws, mixing._cut_boxes(shares, draws, 12, 16), strict=True):
        centre = iter((int(draw[0] * 12), int(draw[1] * 16)))
        monkeypatch.setattr(np.random, "randint", lambda *a, centre=centre, **k: next(centre))
        (top, bottom, left, right), _ = cutmix_bbox_and_lam((3, 12, 16), share)
        assert box.tolist() == [top, left, bottom, right]


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "mixup_cutmix"])
def test_a_pair_mixes_the_same_in_any_batch_and_any_rank(mix):
    whole = recipe(mix, SAMPLES, 12, 16, 3, 1)
    for start in (0, 4):
        part = recipe(mix, SAMPLES[start : start + 4], 12, 16, 3, 1)
        np.testing.assert_array_equal(part.share, whole.share[start : start + 4])
        np.testing.assert_array_equal(part.boxes, whole.boxes[start : start + 4])
    assert not np.array_equal(recipe(mix, SAMPLES, 12, 16, 3, 2).share, whole.share)
    assert not np.array_equal(recipe(mix, SAMPLES, 12, 16, 4, 1).share, whole.share)


def test_shares_follow_their_beta_distributions():
    how = recipe("mixup", np.arange(4000), 32, 32, 0, 0)
    assert kstest(how.share[::2], "beta", (0.8, 0.8)).pvalue > 1e-3
    assert not how.boxes.any()
    how = Recipe(*(part.numpy() for part in recipe("cutmix", np.arange(4000), 400, 400, 0, 0)))
    assert (PLAIN.mixup_alpha, PLAIN.cutmix_alpha, PLAIN.switch_prob) == (0.8, 1.0, 0.5)  # DeiT, table 9
    assert (how.share >= 0).all()
    inside = (how.boxes[:, 0] > 0) & (how.boxes[:, 1] > 0) & (how.boxes[:, 2] < 400) & (how.boxes[:, 3] < 400)
    area = (how.boxes[:, 2] - how.boxes[:, 0]) * (how.boxes[:, 3] - how.boxes[:, 1]) / 160_000
    assert abs(inside.mean() - 1 / 6) < 0.04  # the mean of (1 - r)^2 where r^2 is uniform
    np.testing.assert_allclose(how.share, 1 - area, atol=1e-6)
    both = recipe("mixup_cutmix", np.arange(4000), 32, 32, 0, 0)
    assert abs((both.boxes[::2, 2] > 0).float().mean() - 0.5) < 0.06


def test_an_image_without_a_partner_stays_as_it_is():
    how = recipe("mixup_cutmix", SAMPLES[:7], 12, 16, 0, 0)
    assert how.share[-1] == 1
    assert partners(LABELS[:7])[-1] == LABELS[6]
    torch.testing.assert_close(mixed(IMAGES[:7], how)[-1], IMAGES[6])


def test_none_of_its_own_is_all_of_the_partner():
    how = Recipe(torch.zeros(2), torch.zeros(2, 4, dtype=torch.int64))
    torch.testing.assert_close(mixed(IMAGES[:2], how), IMAGES[:2].flip(0))


def test_alpha_switch_and_probability_are_those_given():
    """Of 4,000 pairs; and a pair that is mixed has the share that it has where all are."""
    samples = np.arange(8000)
    how = Augmentation(mixup_alpha=0.2, mix_prob=0.3)
    share = recipe("mixup", samples, 32, 32, 0, 0, how).share[::2].numpy()
    mixes = share < 1
    assert abs(mixes.mean() - 0.3) < 0.03
    assert kstest(share[mixes], "beta", (0.2, 0.2)).pvalue > 1e-3
    always = recipe("mixup", samples, 32, 32, 0, 0, Augmentation(mixup_alpha=0.2)).share[::2].numpy()
    np.testing.assert_array_equal(share[mixes], always[mixes])
    boxes = recipe("mixup_cutmix", samples, 32, 32, 0, 0, Augmentation(switch_prob=0.8)).boxes[::2]
    assert abs((boxes[:, 2] > 0).float().mean() - 0.8) < 0.03
    halves = recipe("cutmix", samples, 400, 400, 0, 0, Augmentation(cutmix_alpha=1e8)).boxes
    assert set((halves[:, 2] - halves[:, 0]).unique().tolist()) <= set(range(141, 284))  # sides of 400 / sqrt(2), cut
    assert ((halves[:, 2] - halves[:, 0]) == 282).float().mean() > 0.2  # three of ten are cut by no edge
    unmixed = recipe("cutmix", SAMPLES, 12, 16, 0, 0, Augmentation(mix_prob=1e-9))
    assert torch.equal(mixed(IMAGES, unmixed), IMAGES)
