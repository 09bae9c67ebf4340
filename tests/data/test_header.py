import contextlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from vitexp.data.read.decode import BadImage, File, image_header, image_sizes

SIZES = [(1, 1), (3, 5), (480, 17), (300, 4000)]


def size_of(data: bytes, extension: str, where: str) -> tuple[int, int]:
    return image_header(data, extension, where)[1:]


def encoded(height: int, width: int, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + bytes(3000), "comment": b"c" * 100}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + bytes(30)}),
    ],
)
def test_agrees_with_pillow(height: int, width: int, form: str, options: dict[str, object]) -> None:
    data = encoded(height, width, form, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert size_of(data, "png", "x") == (image.height, image.width) == (height, width)
    assert [int(side[0]) for side in image_sizes([File(data, "png", "x")])] == [height, width]


@pytest.mark.parametrize("before", [b"\xff\xc4\x00\x05abc", b"\xff\xff\xff", b"\xff\xcc\x00\x04ab"])
def test_what_may_stand_before_the_frame_is_passed_over(before: bytes) -> None:
    data = encoded(3, 5, "JPEG")
    assert size_of(data[:2] + before + data[2:], "jpg", "x") == (3, 5)


def test_real_photographs(real_data) -> None:
    import tarfile

    with tarfile.open(real_data / "caltech40" / "caltech40.tar") as tar:
        files = [info for info in tar if info.name.endswith((".jpg", ".png", ".webp"))][:200]
        contents = [tar.extractfile(info).read() for info in files]
    assert len(contents) == 200
    for data in contents:
        with Image.open(io.BytesIO(data)) as image:
            assert size_of(data, "jpg", "x") == (image.height, image.width)
            assert [int(side[0]) for side in image_sizes([File(data, "jpg", "x")])] == [image.height, image.width]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_cut_is_an_error_or_the_same_answer(form: str) -> None:
    data = encoded(30, 40, form)
    answers = set()
    for cut in range(len(data)):
        with contextlib.suppress(BadImage):
            answers.add(size_of(data[:cut], "png", "k"))
    assert answers == ({(30, 40)} if form != "WEBP" else set())  # of a WebP the whole is asked for


def test_a_bomb_is_refused_by_its_header() -> None:
    data = bytearray(encoded(4, 4, "PNG"))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(BadImage, match="pixels are allowed"):
        size_of(bytes(data), "png", "k")


def test_no_pixels_and_no_frame_are_named() -> None:
    data = bytearray(encoded(4, 4, "PNG"))
    data[16:20] = bytes(4)
    with pytest.raises(BadImage, match="header is damaged"):
        size_of(bytes(data), "png", "k")
    with pytest.raises(BadImage, match="zero bytes"):
        size_of(b"", "png", "k")
    with pytest.raises(BadImage, match="k: "):
        size_of(b"\xff\xd8\xff\xd9", "jpg", "k")
