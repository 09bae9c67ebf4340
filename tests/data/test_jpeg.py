"""Cutting a JPEG below the rows that are wanted leaves those rows as they are."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitexp.data.read.decode import baseline_frame, cut, is_whole

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 60, 3), dtype=np.uint8))


def saved(**options):
    buffer = io.BytesIO()
    NOISE.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("subsampling", "group"), [(0, 8), (1, 8), (2, 16)])
def test_the_frame_is_found(subsampling, group):
    data = saved(subsampling=subsampling)
    place, *frame = baseline_frame(data)
    assert frame == [100, group]
    assert data[place : place + 2] == (100).to_bytes(2, "big")


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_rows_above_the_cut_are_the_same(subsampling):
    data = saved(subsampling=subsampling)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    for rows in range(1, 101):
        shorter = np.asarray(Image.open(io.BytesIO(cut(data, rows))))
        assert rows <= len(shorter) <= max(rows + 17, 1)
        np.testing.assert_array_equal(shorter[:rows], whole[:rows])


def test_progressive_files_are_left_alone():
    data = saved(progressive=True)
    assert cut(data, 10) is data
    assert baseline_frame(data) is None


def test_a_file_that_was_cut_off_is_not_whole():
    data = saved()
    assert is_whole(data)
    assert is_whole(data + bytes(20))
    assert not is_whole(data[:-1])
    assert not is_whole(data[:-500])


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 10_000))
def test_garbage_is_left_alone(data, rows):
    data = b"\xff\xd8" + data
    assert len(cut(data, rows)) == len(data)
    is_whole(data)
