"""timm's RandAugment, sample by sample the same whatever is drawn around it."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from vitexp.data import policy
from vitexp.data.augmentation import RANDAUGMENT

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
SAMPLES = np.arange(24)


def rand_augmented(images, seed, epoch, samples):
    return policy.applied(images, RANDAUGMENT, 0, 0, seed, epoch, samples)


def test_threads_and_the_global_generators_change_nothing(monkeypatch):
    whole = rand_augmented(IMAGES, 1, 2, SAMPLES)
    random.seed(99)
    np.random.seed(99)
    (randaugment,) = policy.steps(20, RANDAUGMENT, 0, 0)

    def slow(image):
        time.sleep(0.002)  # another thread gets its turn between seeding and drawing
        return randaugment(image)

    monkeypatch.setattr(policy, "steps", lambda *asked: (slow,))
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda i: rand_augmented(IMAGES[i : i + 1], 1, 2, SAMPLES[i : i + 1])[0], range(24))
        np.testing.assert_array_equal(list(parts), whole)
    after = random.random(), np.random.random()
    random.seed(99)
    np.random.seed(99)
    assert after == (random.random(), np.random.random())


def test_it_changes_about_three_images_of_four_and_each_in_its_own_way():
    image = np.broadcast_to(IMAGES[0], (200, 20, 20, 3))
    seen = rand_augmented(image, 0, 0, np.arange(200))
    changed = (seen != image).any((1, 2, 3)).mean()
    assert 0.6 < changed < 0.9  # two operations, each skipped half of the time; few leave the image as it is
    assert len(np.unique(seen.reshape(200, -1), axis=0)) > 90


@pytest.mark.parametrize("bits", range(9))
def test_posterizing_keeps_the_high_bits_down_to_none(bits):
    """Pillow 13 refuses no bits at all, which timm asks for at full magnitude."""
    seen = np.asarray(policy._posterize(Image.fromarray(IMAGES[0]), bits))
    np.testing.assert_array_equal(seen, IMAGES[0] & (0xFF00 >> bits & 0xFF))


def test_every_operation_works_at_the_ends_of_its_range():
    for operation in policy.timms(RANDAUGMENT, 20).ops:
        operation.prob, before = 1.0, (operation.prob, operation.magnitude, operation.magnitude_std)
        for magnitude in (0, 10):
            operation.magnitude, operation.magnitude_std = magnitude, 0
            assert operation(Image.fromarray(IMAGES[0])).size == (20, 20)
        operation.prob, operation.magnitude, operation.magnitude_std = before
