"""Corruptions against plain references: colorsys, means by hand, loops over a reflected border, the published code."""

import colorsys
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.eval.corruptions import CONSTANTS, constants_for, corrupted, defocus_kernel, moved_blur
from vitexp.metrics import CORRUPTIONS

SAMPLES = np.array([5, 6])
PUBLISHED = ("glass_blur", "motion_blur", "zoom_blur", "snow", "fog", "elastic_transform")
"""From left to right in published_corruptions.png, after our image: severity 3 of CIFAR-10-C as the published code
(hendrycks/robustness, ca36008) makes it of our draws, with OpenCV 5.0, scikit-image 0.26 and ImageMagick 6.9.11."""


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def test_every_family_has_five_severities_at_every_published_size():
    assert {size: {name: len(each) for name, each in families.items()} for size, families in CONSTANTS.items()} == {
        size: dict.fromkeys(CORRUPTIONS, 5) for size in (32, 224)
    }
    assert (constants_for(64), constants_for(96)) == (CONSTANTS[32], CONSTANTS[224])


def test_brightness_is_more_of_the_value_of_hsv(images):
    images[0, 0, 0] = 0
    found = corrupted(images, SAMPLES, "brightness", 0.2)
    for place in [(0, 0, 0), *((1, row, 2 * row) for row in range(16))]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(images[place] / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)))
        assert np.abs(found[place] - expected).max() <= 1  # cut off to whole numbers


def test_contrast_draws_every_channel_to_its_mean(images):
    mean = (images / 255).mean(axis=(1, 2), keepdims=True)
    expected = 255 * (0.3 * (images / 255 - mean) + mean)
    assert np.abs(corrupted(images, SAMPLES, "contrast", 0.3) - expected).max() < 1


def test_pixelate_takes_means_of_boxes(images):
    means = images.reshape(2, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    expected = means.repeat(2, axis=1).repeat(2, axis=2)
    assert np.abs(corrupted(images, SAMPLES, "pixelate", 0.5) - expected).max() <= 1  # rounded twice


def test_jpeg_is_what_a_file_of_that_quality_holds(images):
    file = io.BytesIO()
    Image.fromarray(images[1]).save(file, "JPEG", quality=10)
    assert (corrupted(images, SAMPLES, "jpeg_compression", 10)[1] == np.asarray(Image.open(file))).all()


@pytest.mark.parametrize("constant", [(0.3, 0.4), (1.5, 0.1), (3, 0.1), (10, 0.5)])
def test_defocus_is_a_disk_by_loops_over_a_reflected_border(images, constant):
    kernel, (radius, spread) = defocus_kernel(*constant), constant
    far, taps = (8, 1) if radius <= 8 else (radius, 2)
    disk = np.array([[float(x * x + y * y <= radius**2) for x in range(-far, far + 1)] for y in range(-far, far + 1)])
    tap = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * spread**2))
    tap /= tap.sum()
    around = np.pad(disk / disk.sum(), taps, "reflect")
    smooth = sum(
        tap[i] * tap[j] * around[i : i + 2 * far + 1, j : j + 2 * far + 1]
        for i in range(len(tap))
        for j in range(len(tap))
    )
    rim = (smooth.shape[0] - kernel.shape[0]) // 2
    assert kernel == pytest.approx(smooth[rim : rim + len(kernel), rim : rim + len(kernel)])
    assert smooth.sum() - kernel.sum() == pytest.approx(0, abs=1e-12)
    half = len(kernel) // 2
    wide = np.pad(images[1] / 255, ((half, half), (half, half), (0, 0)), "reflect")
    sums = np.zeros((32, 32, 3))
    for i in range(len(kernel)):
        for j in range(len(kernel)):
            sums += kernel[i, j] * wide[i : i + 32, j : j + 32]
    assert np.abs(corrupted(images, SAMPLES, "defocus_blur", constant)[1] - 255 * sums).max() < 1.001


def test_noise_has_the_size_that_was_published():
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    changes = {
        family: corrupted(grey, np.arange(40), family, constant) / 255 - 128 / 255
        for family, constant in (("gaussian_noise", 0.08), ("shot_noise", 60), ("impulse_noise", 0.09))
    }
    assert changes["gaussian_noise"].std() == pytest.approx(0.08, rel=0.02)
    assert changes["shot_noise"].std() == pytest.approx((128 / 255 / 60) ** 0.5, rel=0.02)
    assert (changes["impulse_noise"] != 0).mean() == pytest.approx(0.09, rel=0.02)
    assert {changes["impulse_noise"].min(), changes["impulse_noise"].max()} == {-128 / 255, 127 / 255}


@pytest.mark.parametrize("family", PUBLISHED)
def test_pixels_are_those_of_the_published_code(family):
    strip = np.asarray(Image.open(Path(__file__).with_name("published_corruptions.png")))
    image, *published = np.split(strip, 7, axis=1)
    found = corrupted(image[None], np.array([7]), family, CONSTANTS[32][family][2])[0].astype(int)
    assert np.abs(found - published[PUBLISHED.index(family)]).max() <= 1  # they compute some steps in 32 bits
    assert np.abs(found - image).mean() > 5


def test_a_motion_goes_from_each_pixel_onwards():
    image = np.zeros((1, 9, 1))
    image[0, 6] = 1
    found = moved_blur(image, 2, 1.5, 0)[0, :, 0]
    half = np.exp(-(np.arange(5) ** 2) / (2 * 1.5**2))
    assert found == pytest.approx([0, 0, *half[::-1] / half.sum(), 0, 0])
    assert moved_blur(image.swapaxes(0, 1), 2, 1.5, 90)[:, 0, 0] == pytest.approx(found)


@pytest.mark.parametrize("family", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_batch(images, family):
    constant = CONSTANTS[32][family][4]
    whole = corrupted(images, SAMPLES, family, constant)
    assert (corrupted(images[1:], SAMPLES[1:], family, constant) == whole[1:]).all()
    assert (whole != images).any()
    assert whole.dtype == np.uint8
