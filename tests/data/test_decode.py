"""Every kind of file has one defined answer: pixels, or an error that names it."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitexp.data.read.decode import BadImage, decode_image, sniff

WHERE = "digits-train-000000.tar, key 0001"
NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, depth, colour, rows):
    """A PNG written by hand: Pillow cannot write every kind."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_colour_comes_back_exactly():
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(NOISE), "PNG"), "png", WHERE), NOISE)
    np.testing.assert_array_equal(
        decode_image(saved(Image.fromarray(NOISE), "WEBP", lossless=True), "webp", WHERE), NOISE
    )
    smooth = np.broadcast_to(np.arange(0, 240, 12, dtype=np.uint8)[None, :, None], NOISE.shape)
    again = decode_image(saved(Image.fromarray(np.ascontiguousarray(smooth)), "JPEG", quality=95), "jpg", WHERE)
    assert np.abs(again.astype(int) - smooth).max() <= 3


def test_the_content_says_which_kind_it_is():
    data = saved(Image.fromarray(NOISE), "PNG")
    np.testing.assert_array_equal(decode_image(data, "jpg", WHERE), NOISE)
    assert [sniff(saved(Image.fromarray(NOISE), kind)) for kind in ("PNG", "JPEG", "WEBP")] == ["png", "jpg", "webp"]
    assert sniff(saved(Image.fromarray(NOISE), "BMP")) is None


def test_grey_is_repeated():
    grey = NOISE[..., 0]
    pixels = decode_image(saved(Image.fromarray(grey), "PNG"), "png", WHERE)
    np.testing.assert_array_equal(pixels, np.repeat(grey[..., None], 3, axis=2))
    bits = decode_image(saved(Image.fromarray(grey > 127), "PNG"), "png", WHERE)
    np.testing.assert_array_equal(bits[..., 1], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_sixteen_bits_become_the_high_eight(colour):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(">u2")
    if colour in (4, 6):
        values[..., -1] = 65535
    pixels = decode_image(png(7, 5, 16, colour, [row.tobytes() for row in values]), "png", WHERE)
    expected = (values >> 8).astype(np.uint8)[..., : 1 if channels < 3 else 3]
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (5, 7, 3)))


def test_a_palette_is_looked_up():
    image = Image.fromarray(NOISE).quantize(16)
    np.testing.assert_array_equal(decode_image(saved(image, "PNG"), "png", WHERE), np.asarray(image.convert("RGB")))


def test_transparent_parts_are_laid_over_white():
    layers = np.dstack([NOISE, np.full((12, 20), 255, np.uint8)])
    layers[:6, :, 3] = 0
    layers[6, :, 3] = 128
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels = decode_image(saved(Image.fromarray(layers), kind, **options), kind.lower(), WHERE)
        assert (pixels[:6] == 255).all()
        np.testing.assert_array_equal(pixels[7:], NOISE[7:])
        half = NOISE[6] * (128 / 255) + 255 * (127 / 255)
        assert np.abs(pixels[6] - half).max() <= 1


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    pixels = decode_image(saved(image, "PNG", transparency=0), "png", WHERE)
    assert pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_transparent_colour_is_white():
    image = Image.fromarray(np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8))
    pixels = decode_image(saved(image, "PNG", transparency=(10, 20, 30)), "png", WHERE)
    assert pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_is_converted():
    colour = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixels = decode_image(saved(colour, "JPEG", quality=100), "jpg", WHERE)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data, kind.lower(), WHERE), NOISE)


def test_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(saved(Image.fromarray(NOISE), "JPEG", exif=exif), "jpg", WHERE).shape == (12, 20, 3)


@pytest.mark.parametrize(
    ("data", "extension", "message"),
    [
        (b"", "png", "zero bytes"),
        (b"GIF89a" + bytes(50), "png", "neither PNG, JPEG nor WebP"),
        (saved(Image.fromarray(NOISE), "PNG"), "pkl", "allowed are png, jpg, jpeg, webp"),
        (saved(Image.fromarray(NOISE), "PNG")[:-300], "png", "does not decode"),
        (saved(Image.fromarray(NOISE), "JPEG")[:-150], "jpg", "does not decode"),
        (saved(Image.fromarray(NOISE), "WEBP")[:-100], "webp", "does not decode"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "png", "does not decode"),
        (b"\xff\xd8\xff" + bytes(50), "jpg", "does not decode"),
    ],
)
def test_what_is_no_whole_image_is_refused_by_name(data, extension, message):
    with pytest.raises(BadImage, match=message) as caught:
        decode_image(data, extension, WHERE)
    assert str(caught.value).startswith(WHERE)


@pytest.mark.parametrize("side", [8193, 10_000, 14_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    """1, 1.5, 2.9 and 54 times the limit, where Pillow itself is silent, warns, or refuses."""
    bomb = png(side, side, 8, 2, [b""])
    with pytest.raises(BadImage, match=r"at most \d+ (pixels )?are allowed") as caught:
        decode_image(bomb, "png", WHERE)
    assert str(caught.value).startswith(WHERE)


def test_a_bomb_in_the_text_of_a_png_is_refused():
    whole = saved(Image.fromarray(NOISE), "PNG")
    text = b"zTXtbomb\0\0" + zlib.compress(bytes(10_000_000))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    with pytest.raises(BadImage, match=f"^{WHERE}.*does not decode"):
        decode_image(whole[:33] + chunk + whole[33:], "png", WHERE)


def test_a_reduced_jpeg_has_a_fraction_of_the_size():
    data = saved(Image.fromarray(np.repeat(np.repeat(NOISE, 10, 0), 10, 1)), "JPEG")
    assert decode_image(data, "jpg", WHERE, 2).shape == (60, 100, 3)
    assert decode_image(data, "jpg", WHERE, 8).shape == (15, 25, 3)
    assert decode_image(saved(Image.fromarray(NOISE), "PNG"), "png", WHERE, 8).shape == (12, 20, 3)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255))),
)
def test_damaged_bytes_give_pixels_or_a_bad_image_and_nothing_else(kind, changes):
    data = bytearray(saved(Image.fromarray(NOISE), kind))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        pixels = decode_image(bytes(data), "png", WHERE)
    except BadImage:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
