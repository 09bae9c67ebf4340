"""The fast way to a photograph's box shows the same as the slow way."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from vitexp.data.order import uniforms
from vitexp.data.read import decode as photo
from vitexp.data.read.decode import (
    BadImage,
    File,
    baseline_frame,
    decode_box,
    decode_boxes,
    image_sizes,
    reduction,
    resize_into,
)
from vitexp.data.views import DRAWS, inception_boxes, whole_boxes

needs_simplejpeg = pytest.mark.skipif(not photo.FAST, reason="simplejpeg is not installed: Pillow decodes everything")


def scene(height, width, seed=0):
    """Smooth light, edges and fine grain, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.asarray(coarse).astype(int) + rng.normal(0, 6, (height, width, 1))
    pixels[height // 3 : height // 2, width // 4 : width // 2] //= 3
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return File(buffer.getvalue(), "jpg", "shard 3, key 17")


def slow(file, box, size):
    """Full decoding, cropping and resizing by Pillow; edges on the pixels that the reduced image has."""
    step = reduction(box, size)
    top, left, height, width = (edge // step * step for edge in box)
    whole = Image.open(io.BytesIO(file.data)).convert("RGB")
    part = whole.crop((left, top, left + width, top + height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)


def boxes_for(files, key=1):
    return inception_boxes(uniforms(key, np.arange(len(files)), DRAWS), *image_sizes(files))


@pytest.mark.parametrize("size", [16, 48, 96, 224])
def test_it_stays_within_the_stated_tolerance_of_the_slow_way(size):
    files = [jpeg(scene(300 + 11 * i, 420 - 13 * i, i), quality=90) for i in range(12)]
    boxes = boxes_for(files)
    fast = decode_boxes(files, boxes, size)
    apart = [np.abs(slow(f, b, size) - a).mean() for f, b, a in zip(files, boxes.tolist(), fast, strict=True)]
    reduced = [reduction(box, size) > 1 for box in boxes.tolist()]
    assert all(reduced) == (size == 16)
    assert any(reduced) == (size < 224)
    for levels, by_half in zip(apart, reduced, strict=True):
        assert levels < (2.5 if by_half else 0.25)
    assert np.mean(apart) < 0.8


@pytest.mark.parametrize("archive", ["trashnet-540/trashnet-540.tar", "caltech40/caltech40.tar"])
def test_it_stays_within_the_stated_tolerance_on_real_photographs(real_data, archive):
    with tarfile.open(real_data / archive) as tar:
        members = [member for member in tar if member.isfile()][::40]
        files = [File(tar.extractfile(member).read(), "jpg", member.name) for member in members]
    for size in (64, 128):
        boxes = boxes_for(files)
        fast = decode_boxes(files, boxes, size)
        apart = [np.abs(slow(f, b, size) - a).mean() for f, b, a in zip(files, boxes.tolist(), fast, strict=True)]
        assert np.mean(apart) < 0.6
        assert np.max(apart) < 2.5


@needs_simplejpeg
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_simplejpeg_and_pillow_give_the_same_pixels(monkeypatch, options, mode):
    files = [jpeg(scene(200 + 7 * i, 173 + 5 * i, i).convert(mode), **options) for i in range(8)]
    for size in (8, 32, 100):
        for file, box in zip(files, boxes_for(files).tolist(), strict=True):
            with_it = decode_box(file, box, size).copy()
            monkeypatch.setattr(photo, "FAST", False)
            np.testing.assert_array_equal(with_it, decode_box(file, box, size))
            monkeypatch.undo()


@needs_simplejpeg
def test_a_subsampling_that_simplejpeg_cannot_name_is_decoded_by_pillow():
    data = bytearray(jpeg(scene(64, 64), subsampling=2).data)
    place = baseline_frame(data)[0] + 6  # of the first colour's factors: as many blocks, one above the other
    assert data[place] == 0x22
    data[place] = 0x14
    file = File(bytes(data), "jpg", "x")
    assert np.array(image_sizes([file])).tolist() == [[64], [64]]
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_box(file, (0, 0, 64, 64), 64), np.asarray(image))


@needs_simplejpeg
def test_every_last_row_is_right_where_the_decoder_stops_early(monkeypatch):
    file = jpeg(scene(150, 90))
    for bottom in range(1, 151):
        with_it = decode_box(file, (0, 0, bottom, 90), 1000).copy()
        monkeypatch.setattr(photo, "FAST", False)
        np.testing.assert_array_equal(with_it, decode_box(file, (0, 0, bottom, 90), 1000))
        monkeypatch.undo()


@pytest.mark.parametrize("fast", [True, False])
def test_cmyk_and_other_kinds_come_the_same_way(monkeypatch, fast):
    monkeypatch.setattr(photo, "FAST", fast and photo.FAST)
    ink = Image.merge("CMYK", [*scene(40, 40).split(), Image.new("L", (40, 40), 60)])
    buffer = io.BytesIO()
    scene(40, 40).save(buffer, "PNG")
    files = [jpeg(ink, quality=100), File(buffer.getvalue(), "png", "x")]
    decoded = decode_boxes(files, whole_boxes(*image_sizes(files)), 40)
    np.testing.assert_array_equal(decoded[0], np.asarray(Image.open(io.BytesIO(files[0].data)).convert("RGB")))
    np.testing.assert_array_equal(decoded[1], np.asarray(scene(40, 40)))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_truncated_photograph_is_named_even_where_the_box_is_whole(monkeypatch, fast, part):
    monkeypatch.setattr(photo, "FAST", fast and photo.FAST)
    file = jpeg(scene(200, 200))
    short = file._replace(data=file.data[: int(len(file.data) * part)])
    with pytest.raises(BadImage, match="shard 3, key 17"):
        decode_boxes([short], np.array([[0, 0, 20, 20]]), 10)


@pytest.mark.parametrize("fast", [True, False])
def test_a_jpeg_that_says_it_is_huge_is_refused_before_it_is_decoded(monkeypatch, fast):
    monkeypatch.setattr(photo, "FAST", fast and photo.FAST)
    file = jpeg(scene(40, 40))
    place = baseline_frame(file.data)[0]
    bomb = file._replace(data=file.data[:place] + b"\xff\xff\xff\xff" + file.data[place + 4 :])
    with pytest.raises(BadImage, match=r"shard 3, key 17.* pixels"):
        decode_box(bomb, (0, 0, 40_000, 40_000), 10)


@pytest.mark.parametrize(("side", "expected"), [(32, 1), (95, 1), (96, 2), (191, 2), (192, 4), (384, 8), (5000, 8)])
def test_a_reduction_leaves_half_as_much_again(side, expected):
    assert reduction((0, 0, side, 9999), 32) == expected
    assert reduction((0, 0, 9999, side), 32) == expected


@pytest.mark.parametrize("shape", [(31, 50), (224, 100), (9, 9), (16, 16), (300, 200)])
def test_writing_into_the_batch_is_what_interpolate_gives(shape):
    pixels = np.array(scene(*shape))
    batch = torch.zeros((3, 16, 16, 3), dtype=torch.uint8)
    resize_into(batch[1], pixels)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(image, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(batch[1], expected[0].permute(1, 2, 0))
    assert not batch[[0, 2]].any()
