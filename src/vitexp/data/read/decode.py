"""Image bytes from anywhere to RGB pixels, with one defined answer for every kind of file.

Only PNG, JPEG and WebP are opened, which the content decides, not the name; `shards make` converts a few more kinds
to PNG. What the answer is:

- grey is repeated over the three channels; a palette is looked up; CMYK is converted as Pillow does;
- 16 bits a channel become the high 8;
- what is transparent is laid over white: what lies hidden under a transparent pixel is arbitrary;
- an animation gives its first frame; EXIF orientation and colour profiles are ignored, as in every ImageNet pipeline.
"""

import io

import numpy as np
from PIL import Image

EXTENSIONS = ("png", "jpg", "jpeg", "webp")
OTHER_IMAGES = (
    *("bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "jpe", "jfif"),
    *("avif", "heic", "heif", "jp2", "j2k", "jxl", "tga", "ico", "exr", "psd", "svg", "dcm"),
)
"""Images as well, which no shard may hold under these names."""
MAX_PIXELS = 2**26  # 67 million pixels, 200 MB as RGB: more is a decompression bomb or no training image
Bytes = bytes | memoryview
_CONVERTED = {b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_CONVERTED |= {b"P%d" % number: "PPM" for number in range(1, 7)}
_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I")
_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


class BadImage(ValueError):
    """Bytes that are no image of a kind we read; the message names the shard and the key."""


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


def decode_image(data: Bytes, extension: str, where: object, factor: int = 1) -> np.ndarray:
    """The pixels of one image; of a JPEG at 1/factor of its size (1, 2, 4 or 8) as its decoder reduces it.

    Shapes: uint8 (height, width, 3).
    Raises: BadImage naming `where` when the bytes are not a whole, allowed image of at most MAX_PIXELS pixels.
    """
    kind = check_image(data, extension, where)
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[kind]]) as image:
            check_pixels(image.width, image.height, where)
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))
            return np.array(to_rgb(image))
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{where}: {error}; at most {MAX_PIXELS} pixels are allowed") from error
    except Exception as error:  # a decoder may raise anything at all on hostile bytes
        raise BadImage(f"{where}: the {_FORMATS[kind]} does not decode ({error}); write the shard again") from error


def convert_image(data: Bytes, where: object) -> np.ndarray | None:
    """The pixels of a GIF, BMP, TIFF or PPM, which a shard holds as PNG; None for any other bytes.

    Shapes: uint8 (height, width, 3).
    Raises: BadImage naming `where` for one that does not decode, and for more than a picture of 8 or 16 bits.
    """
    kind = next((kind for magic, kind in _CONVERTED.items() if bytes(data[: len(magic)]) == magic), None)
    if kind is None or (kind == "PPM" and not bytes(data[2:3]).isspace()):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            check_pixels(image.width, image.height, where)
            pages = getattr(image, "n_frames", 1) if kind == "TIFF" else 1
            if pages > 1 or image.mode not in _PLAIN_MODES or (kind == "TIFF" and image.mode == "I"):
                raise BadImage(
                    f"{where}: the {kind} has {pages} pages of mode {image.mode}; convert it to PNG yourself"
                )
            return np.array(to_rgb(image))
    except BadImage:
        raise
    except Exception as error:  # a decoder may raise anything at all on hostile bytes
        raise BadImage(f"{where}: the {kind} does not decode ({error}); repair it, or convert it to PNG") from error


def check_pixels(width: int, height: int, where: object) -> None:
    """Refuses an image that would fill the memory, by its header, before anything is unpacked."""
    if width * height > MAX_PIXELS:
        raise BadImage(f"{where}: {width} x {height} pixels, at most {MAX_PIXELS} are allowed; make the image smaller")


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
