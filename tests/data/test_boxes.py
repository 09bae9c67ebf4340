"""Boxes: the distribution is torchvision's, and every box lies inside its image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from vitexp.data.order import uniforms
from vitexp.data.views import DRAWS, centre_boxes, inception_boxes, whole_boxes


@pytest.mark.parametrize(("height", "width"), [(384, 512), (100, 400)])
def test_inception_boxes_are_distributed_as_in_torchvision(height, width):
    from torchvision.transforms import RandomResizedCrop

    count = 4000
    ours = inception_boxes(uniforms(1, np.arange(count), DRAWS), np.full(count, height), np.full(count, width))
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, scale=(0.05, 1.0), ratio=(3 / 4, 4 / 3)) for _ in range(count)]
    )
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    for combined in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2]):
        assert ks_2samp(combined(ours), combined(theirs)).pvalue > 1e-3


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_every_box_lies_inside_the_image(height, width, key):
    h, w = np.full(20, height), np.full(20, width)
    for boxes in (inception_boxes(uniforms(key, np.arange(20), DRAWS), h, w), whole_boxes(h, w), centre_boxes(h, w)):
        top, left, tall, wide = boxes.T
        assert (tall >= 1).all()
        assert (wide >= 1).all()
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + tall <= height).all()
        assert (left + wide <= width).all()


def test_a_strip_that_no_try_fits_gives_the_largest_allowed_box_in_the_middle():
    draws = np.full((1, DRAWS), 0.999)
    assert inception_boxes(draws, np.array([30]), np.array([3000])).tolist() == [[0, 1480, 30, 40]]
    assert inception_boxes(draws, np.array([3000]), np.array([30])).tolist() == [[1480, 0, 40, 30]]


def test_a_box_reaches_every_edge():
    height, width = np.array([40]), np.array([50])
    draws = np.full((1, DRAWS), 0.4)
    draws[:, :2] = 0.0
    assert inception_boxes(draws, height, width)[0, :2].tolist() == [0, 0]
    draws[:, :2] = 0.9999
    top, left, tall, wide = inception_boxes(draws, height, width)[0]
    assert (top + tall, left + wide) == (40, 50)


def test_the_centre_is_seven_eighths_of_the_shorter_side():
    assert centre_boxes(np.array([256, 256]), np.array([256, 512])).tolist() == [
        [16, 16, 224, 224],
        [16, 144, 224, 224],
    ]
    assert whole_boxes(np.array([3]), np.array([5])).tolist() == [[0, 0, 3, 5]]
