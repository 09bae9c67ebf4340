"""A view depends on (seed, epoch, sample) and on nothing else, and does what its word says."""

import io

import numpy as np
import pytest
from PIL import Image

from vitexp.data.order import EVALUATION
from vitexp.data.views import File, View, mirror, moved

WORDS = ("none", "crop", "flip", "crop_flip", "inception", "randaugment")
RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
SAMPLES = RNG.permutation(10_000)[:64]


def files(kind="JPEG"):
    found = []
    for i in range(8):
        pixels = np.asarray(Image.effect_noise((90 + 7 * i, 120 - 5 * i), 60).convert("RGB"))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        found.append(File(buffer.getvalue(), kind.lower().replace("jpeg", "jpg"), f"key {i}"))
    return found


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("size", [32, 24])
def test_a_sample_gets_the_same_view_in_any_batch(word, size):
    whole = View(size, word, seed=7).from_pixels(SMALL, 3, SAMPLES)
    assert whole.shape == (64, size, size, 3)
    assert whole.dtype == np.uint8
    some = RNG.permutation(64)[:5]
    np.testing.assert_array_equal(View(size, word, seed=7).from_pixels(SMALL[some], 3, SAMPLES[some]), whole[some])


@pytest.mark.parametrize("word", WORDS)
def test_a_file_gets_the_same_view_in_any_batch(word):
    view, batch = View(48, word, seed=7), files()
    whole = view.from_files(batch, 3, SAMPLES[:8])
    assert whole.shape == (8, 48, 48, 3)
    for i in range(8):
        np.testing.assert_array_equal(view.from_files([batch[i]], 3, SAMPLES[i : i + 1])[0], whole[i])


@pytest.mark.parametrize("word", WORDS[1:])
def test_seed_epoch_and_sample_each_change_the_view(word):
    def seen(seed=7, epoch=3, samples=SAMPLES):
        return View(32, word, seed=seed).from_pixels(SMALL, epoch, samples)

    for other in (seen(seed=8), seen(epoch=4), seen(samples=SAMPLES + 1)):
        changed = (other != seen()).any((1, 2, 3)).mean()
        assert changed > 0.3
    np.testing.assert_array_equal(seen(), seen())


def test_none_shows_the_image_itself():
    np.testing.assert_array_equal(View(32, "none").from_pixels(SMALL, 0, SAMPLES), SMALL)
    np.testing.assert_array_equal(View(32, "crop_flip").from_pixels(SMALL, EVALUATION, SAMPLES), SMALL)


def test_flip_mirrors_half_of_the_samples_and_leaves_the_rest():
    count = 4000
    image = np.broadcast_to(SMALL[0, :8, :8], (count, 8, 8, 3))
    seen = View(8, "flip").from_pixels(image, 0, np.arange(count))
    same = (seen == image).all((1, 2, 3))
    turned = (seen == image[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ turned).all()
    assert abs(turned.mean() - 0.5) < 4 * np.sqrt(0.25 / count)


@pytest.mark.parametrize("word", ["crop", "crop_flip"])
def test_crop_is_a_window_of_the_reflected_image_and_every_window_is_as_likely(word):
    count, reach, size = 2500, 2, 16
    image = SMALL[0, :size, :size]
    seen = View(size, word).from_pixels(np.broadcast_to(image, (count, size, size, 3)), 0, np.arange(count))
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    found = 0
    for top, left in np.ndindex(5, 5):
        window = padded[top : top + size, left : left + size]
        hits = (seen == window).all((1, 2, 3)).sum()
        if word == "crop_flip":
            turned = (seen == window[:, ::-1]).all((1, 2, 3)).sum()
            assert abs(hits - turned) < 5 * np.sqrt(count / 25)
            hits += turned
        assert abs(hits - count / 25) < 5 * np.sqrt(count / 25)
        found += hits
    assert found == count


def test_moving_shifts_over_a_reflected_border_and_then_mirrors():
    large = RNG.integers(0, 256, (5, 80, 70, 3), dtype=np.uint8)
    shifts, flips = RNG.integers(-8, 9, (5, 2)), np.array([True, False, True, False, True])
    expected = []
    for image, (down, right), flip in zip(large, shifts, flips, strict=True):
        window = np.pad(image, ((8, 8), (8, 8), (0, 0)), "reflect")[8 + down : 88 + down, 8 + right : 78 + right]
        expected.append(window[:, ::-1] if flip else window)
    np.testing.assert_array_equal(moved(large, shifts, flips), expected)


def test_inception_shows_parts_and_flips_half():
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None], (2000, 64, 64, 3))
    seen = View(16, "inception").from_pixels(ramp, 0, np.arange(2000)).astype(int)
    slope = seen[:, 8, -1, 0] - seen[:, 8, 0, 0]
    assert abs((slope < 0).mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)
    assert np.quantile(np.abs(slope), 0.1) < 100 < 200 < np.quantile(np.abs(slope), 0.95)


@pytest.mark.parametrize("planar", [False, True])
def test_mirroring_is_what_numpy_gives(planar):
    images = RNG.integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    if planar:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = images.copy()
    expected[[0, 3]] = expected[[0, 3], :, ::-1]
    mirror(images, np.array([0, 3]))
    np.testing.assert_array_equal(images, expected)


def test_the_centre_view_shows_the_middle():
    image = np.zeros((1, 64, 128, 3), np.uint8)
    image[:, 4:60, 36:92] = 255
    assert (View(32, measured="crop").from_pixels(image, EVALUATION, np.zeros(1, int)) == 255).all()
    buffer = io.BytesIO()
    Image.fromarray(image[0]).save(buffer, "PNG")
    file = File(buffer.getvalue(), "png", "key")
    assert (View(32, measured="crop").from_files([file], EVALUATION, np.zeros(1, int)) == 255).all()
    assert (View(32, "flip").from_files([file], EVALUATION, np.zeros(1, int))[0, 0] == 0).all()


@pytest.mark.parametrize("word", WORDS)
def test_evaluation_ignores_seed_and_sample(word):
    one, other = View(20, word, seed=1), View(20)
    np.testing.assert_array_equal(
        one.from_pixels(SMALL, EVALUATION, SAMPLES), other.from_pixels(SMALL, EVALUATION, SAMPLES + 1)
    )


def test_a_crop_without_effect_is_refused():
    with pytest.raises(ValueError, match="crop has no effect on images of 7 pixels"):
        View(7, "crop")
