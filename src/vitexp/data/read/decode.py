"""Image bytes from anywhere to RGB pixels, with one defined answer for every kind of file.

Only PNG, JPEG and WebP are opened, which the content decides, not the name; `shards make` converts a few more kinds
to PNG. What the answer is:

- grey is repeated over the three channels; a palette is looked up; CMYK is converted as Pillow does;
- 16 bits a channel become the high 8;
- what is transparent is laid over white: what lies hidden under a transparent pixel is arbitrary;
- an animation gives its first frame; EXIF orientation and colour profiles are ignored, as in every ImageNet pipeline.

Of a photograph only the part that a view shows is decoded, at no more than the resolution it needs, and resized. A box
that is reduced to a third or less is decoded at 1/2, 1/4 or 1/8 (the decoder's own scaling, which skips most of the
inverse transform) and its edges move inwards to whole reduced pixels. Against full decoding of the same box that
changes a photograph by 0.4 of 255 levels on average, and by less than 2.5 in the worst of our test images. Resizing is
bilinear with antialiasing on uint8. `simplejpeg`, where installed, replaces Pillow's decoder: the same libjpeg-turbo
and the same pixels with less copying, and it stops below the box.
"""

import io
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

EXTENSIONS = ("png", "jpg", "jpeg", "webp")
OTHER_IMAGES = (
    *("bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "jpe", "jfif"),
    *("avif", "heic", "heif", "jp2", "j2k", "jxl", "tga", "ico", "exr", "psd", "svg", "dcm"),
)
"""Images as well, which no shard may hold under these names."""
MAX_PIXELS = 2**26  # 67 million pixels, 200 MB as RGB: more is a decompression bomb or no training image
GAP = 1.5  # the decoder reduces by a box, which leaves some aliasing: half as much resolution again hides it
FAST = find_spec("simplejpeg") is not None
Bytes = bytes | bytearray | memoryview
_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_CONVERTED = {b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_CONVERTED |= {b"P%d" % number: "PPM" for number in range(1, 7)}
_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I")


class BadImage(ValueError):
    """Bytes that are no image of a kind we read; the message names the shard and the key."""


class File(NamedTuple):
    """An image as it lies in a shard; `where` names shard and key in errors."""

    data: Bytes
    extension: str
    where: object


def sniff(data: Bytes) -> str | None:
    """The extension that belongs to the content: png, jpg or webp; None for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def check_image(data: Bytes, extension: str, where: object) -> str:
    """Checks the name and the first bytes only; returns the extension that belongs to the content.

    Raises: BadImage for an extension that is not allowed, for no bytes, and for bytes of another kind.
    """
    if extension.lower() not in EXTENSIONS:
        raise BadImage(f"{where}: .{extension} is no image we read; allowed are {', '.join(EXTENSIONS)}")
    if not data:
        raise BadImage(f"{where}: the image has zero bytes; write the shard again")
    kind = sniff(data)
    if kind is None:
        raise BadImage(f"{where}: the bytes are neither PNG, JPEG nor WebP (they begin with {bytes(data[:8])!r})")
    return kind


@contextmanager
def _opened(data: Bytes, kind: str, where: object, remedy: str) -> Iterator[Image.Image]:
    """The image before it is decoded. Raises: BadImage for what does not open or decode, or would fill the memory."""
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{where}: {error}; at most {MAX_PIXELS} pixels are allowed, make it smaller") from error
    except Exception as error:  # a decoder may raise anything at all on hostile bytes
        reason = "its header is damaged" if isinstance(error, UnidentifiedImageError) else error
        raise BadImage(f"{where}: the {kind} does not decode ({reason}); {remedy}") from error


def decode_image(data: Bytes, extension: str, where: object, factor: int = 1) -> np.ndarray:
    """The pixels of one image; of a JPEG at 1/factor of its size (1, 2, 4 or 8) as its decoder reduces it.

    Shapes: uint8 (height, width, 3).
    Raises: BadImage naming `where` when the bytes are not a whole, allowed image of at most MAX_PIXELS pixels.
    """
    kind = _FORMATS[check_image(data, extension, where)]
    with _opened(data, kind, where, "write the shard again") as image:
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        return np.array(to_rgb(image))


def image_header(data: Bytes, extension: str, where: object) -> tuple[str, int, int]:
    """The extension that belongs to the content, height and width as stored. Raises: BadImage, as decode_image."""
    kind = check_image(data, extension, where)
    with _opened(data, _FORMATS[kind], where, "write the shard again") as image:
        return kind, image.height, image.width


def convert_image(data: Bytes, where: object) -> np.ndarray | None:
    """The pixels of a GIF, BMP, TIFF or PPM, which a shard holds as PNG; None for any other bytes.

    Shapes: uint8 (height, width, 3).
    Raises: BadImage naming `where` for one that does not decode, and for more than a picture of 8 or 16 bits.
    """
    kind = next((kind for magic, kind in _CONVERTED.items() if bytes(data[: len(magic)]) == magic), None)
    if kind is None or (kind == "PPM" and not bytes(data[2:3]).isspace()):
        return None
    with _opened(data, kind, where, "repair it, or convert it to PNG") as image:
        pages = getattr(image, "n_frames", 1) if kind == "TIFF" else 1
        if pages > 1 or image.mode not in _PLAIN_MODES or (kind == "TIFF" and image.mode == "I"):
            raise BadImage(f"{where}: the {kind} has {pages} pages of mode {image.mode}; convert it to PNG yourself")
        return np.array(to_rgb(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame of an opened image in mode RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return image.convert("RGB")


def image_sizes(files: Sequence[File]) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths from the headers alone."""
    sizes = [_jpeg_header(file.data)[:2] or image_header(*file)[1:] for file in files]
    heights, widths = np.array(sizes, np.int64).reshape(-1, 2).T
    return heights, widths


def _jpeg_header(data: Bytes) -> tuple[int, int, str] | tuple[()]:
    """Height, width and colours of a JPEG in a tenth of Pillow's time; nothing where that has to read or refuse it."""
    if not FAST or sniff(data) != "jpg" or not is_whole(data):
        return ()
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # it has no name for a rare subsampling
        return ()
    return (height, width, colours) if height * width <= MAX_PIXELS and colours != "CMYK" else ()


def decode_boxes(files: Sequence[File], boxes: np.ndarray, size: int) -> np.ndarray:
    """Each file's box as a square of `size`.

    Shapes: boxes (B, 4) as top, left, height, width -> uint8 (B, size, size, 3).
    """
    images = torch.empty((len(files), size, size, 3), dtype=torch.uint8)
    for i, (file, box) in enumerate(zip(files, boxes.tolist(), strict=True)):
        resize_into(images[i], decode_box(file, box, size))
    return images.numpy()


def decode_box(file: File, box: Sequence[int], size: int) -> np.ndarray:
    """The pixels of a box, in a JPEG at the resolution that `size` needs and with edges on its reduced pixels.

    They may lie in memory that this thread's next image is decoded into.
    """
    factor = reduction(box, size) if sniff(file.data) == "jpg" else 1
    top, left, height, width = (edge // factor for edge in box)
    pixels = _simplejpeg(file.data, factor, top + height)
    if pixels is None:
        pixels = decode_image(file.data, file.extension, file.where, factor)
    return pixels[top : top + height, left : left + width]


def reduction(box: Sequence[int], size: int) -> int:
    """By how much the decoder reduces a box on its way to `size` (1, 2, 4, 8), leaving half as much again as needed."""
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or min(box[2:]) >= GAP * factor * size)


class _Scratch(threading.local):
    """This thread's memory for decoded pixels: fresh pages for every image would cost a tenth of its decoding."""

    space = np.empty(0, np.uint8)


_scratch = _Scratch()


def _simplejpeg(data: Bytes, factor: int, rows: int) -> np.ndarray | None:
    """Down to row `rows` at least; None where only Pillow can decode it, or explain what is wrong with it."""
    data = cut(data, rows, factor)
    if not (header := _jpeg_header(data)):
        return None
    import simplejpeg

    height, width, _ = header
    try:
        if len(_scratch.space) < height * width * 3:
            _scratch.space = np.empty(height * width * 3, np.uint8)
        # The decoder takes the smallest size that is no less than the least: exactly 1/factor, rounded up.
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
        # Not strict: Pillow too takes what libjpeg can mend; a file that was cut off is not mended (is_whole).
        return simplejpeg.decode_jpeg(data, "RGB", strict=False, **least, buffer=_scratch.space)
    except ValueError:
        return None


def cut(data: Bytes, rows: int, factor: int = 1) -> Bytes:
    """A JPEG down to row `rows` of its reduction by `factor`, rounded up to what gives exactly those rows.

    A smaller height in its header makes the decoder stop there. Rows of a baseline JPEG come one after the other, so
    those above the cut are the same to the last bit. A progressive file, or one whose colours lie in separate scans,
    stays whole.
    """
    place, full, group = baseline_frame(data) or (0, 0, 1)
    last = (rows + 2) * factor  # colour at half resolution is interpolated with its next row
    needed = -(-last // group) * group
    if needed >= full:
        return data
    shorter = bytearray(data)
    struct.pack_into(">H", shorter, place, needed)
    return shorter


def is_whole(data: Bytes) -> bool:
    """Whether the file ends as a JPEG does: one that was cut off in transfer does not."""
    return bytes(data[-64:]).rstrip(b"\0").endswith(b"\xff\xd9")


def baseline_frame(data: Bytes) -> tuple[int, int, int] | None:
    """Of a baseline JPEG with one scan: where its height stands, the height, the pixel rows of a row of blocks."""
    at, frame, colours = 2, None, 0
    try:
        while data[at] == 0xFF:
            marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
            if marker in (0xC0, 0xC1):
                colours = data[at + 9]
                group = 8 * max(data[at + 11 + 3 * i] & 15 for i in range(colours))
                frame = at + 5, struct.unpack_from(">H", data, at + 5)[0], group
            elif marker == 0xDA:
                return frame if data[at + 4] == colours else None
            elif marker == 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
                return None
            at += 2 + length
    except (IndexError, struct.error, ValueError):
        pass
    return None


def resize_into(image: torch.Tensor, pixels: np.ndarray) -> None:
    """Bilinear with antialiasing, written straight into a batch.

    F.interpolate computes the same into a new tensor, channels first, and costs twice as much.
    Shapes: uint8 (H, W, 3) -> (size, size, 3).
    """
    source = torch.from_numpy(np.ascontiguousarray(pixels)[None])
    if source.shape[1:] == image.shape:
        image.copy_(source[0])
        return
    planes = (source.permute(0, 3, 1, 2), image[None].permute(0, 3, 1, 2))
    torch.ops.aten._upsample_bilinear2d_aa.out(planes[0], list(image.shape[:2]), False, None, None, out=planes[1])
