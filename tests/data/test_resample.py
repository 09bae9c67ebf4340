"""Batch resizing agrees with Pillow to one level, and no machine rounds it differently."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitexp.data.views import resize_boxes, weights

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 20, 28, 3), dtype=np.uint8)
BOXES = np.array([[0, 0, 20, 28], [3, 5, 10, 9], [0, 0, 1, 1], [19, 27, 1, 1], [7, 0, 13, 28], [2, 2, 16, 16]])


@pytest.mark.parametrize("size", [1, 8, 16, 33])
def test_it_is_pillow_on_the_cropped_image(size):
    ours = resize_boxes(IMAGES, BOXES, size)
    assert ours.shape == (6, size, size, 3)
    for image, (top, left, height, width), result in zip(IMAGES, BOXES.tolist(), ours, strict=True):
        part = Image.fromarray(image[top : top + height, left : left + width])
        expected = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(result - expected).max() <= 1


def test_a_box_of_the_wanted_size_is_copied():
    np.testing.assert_array_equal(resize_boxes(IMAGES, BOXES, 16)[5], IMAGES[5, 2:18, 2:18])


def test_a_plain_colour_stays_that_colour():
    for value in (0, 1, 127, 254, 255):
        plain = np.full((6, 20, 28, 3), value, np.uint8)
        assert (resize_boxes(plain, BOXES, 13) == value).all()


def test_an_image_gives_the_same_whatever_batch_it_is_in():
    together = resize_boxes(IMAGES, BOXES, 24)
    for i in range(6):
        np.testing.assert_array_equal(resize_boxes(IMAGES[i : i + 1], BOXES[i : i + 1], 24)[0], together[i])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_every_output_is_a_whole_mean(pixels, size, data):
    start = data.draw(st.integers(0, pixels - 1))
    length = data.draw(st.integers(1, pixels - start))
    units = weights(np.array([start]), np.array([length]), pixels, size)[0]
    assert (units.sum(-1) == 2**14).all()
    assert (units >= 0).all()
    assert not units[:, :start].any()
    assert not units[:, start + length :].any()


def test_the_order_of_summation_cannot_matter():
    """Whole units that sum to 2^14: with pixels below 256 every partial sum stays below 2^24, exact in float32."""
    units = weights(BOXES[:, 0], BOXES[:, 2], 20, 31)
    assert (units == np.rint(units)).all()
    down, across = weights(BOXES[:, 0], BOXES[:, 2], 20, 31), weights(BOXES[:, 1], BOXES[:, 3], 28, 31)
    narrow = np.einsum("bhwc,bsw->bhsc", IMAGES.astype(np.int64), across.astype(np.int64)) + 2**13 >> 14
    whole = np.einsum("bhsc,bth->btsc", narrow, down.astype(np.int64)) + 2**13 >> 14
    np.testing.assert_array_equal(resize_boxes(IMAGES, BOXES, 31), whole)
