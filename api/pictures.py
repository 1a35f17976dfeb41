"""Callers' pictures: decoded here, once, so that the GPU tier only ever sees clean PNG files.

What is stored is drawn anew from the pixels: no metadata (a photo's place and time) and no trick of
a file format travels further.
"""

import base64
import binascii
import hashlib
import io
import re
from dataclasses import dataclass

from PIL import Image, ImageOps

from darkroom.errors import InvalidInput
from darkroom.generation import MAX_INPUT_PIXELS, InputImage

FORMATS = ("PNG", "JPEG", "WEBP")
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_DATA_URL = re.compile(r"^data:image/[a-z0-9.+-]{1,32};base64,")


@dataclass(frozen=True)
class StoredPicture:
    """A PNG file for the image store, and what the record keeps of it."""

    png: bytes
    summary: InputImage


def decode(text: str, target: str) -> Image.Image:
    """Decode a base64 picture (or a base64 ``data:`` URL) of the field ``target``.

    Raises `InvalidInput` that names the field for anything but a whole PNG, JPEG or WebP of at most
    `MAX_INPUT_PIXELS` pixels; the size is checked before a pixel is decoded.
    """
    if _URL.match(text):
        raise InvalidInput(
            f"{target} is a URL, and URLs are never fetched: send the picture itself, as base64",
            target=target,
        )
    try:
        data = base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{target} must be base64 (RFC 4648)", target=target) from None
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > MAX_INPUT_PIXELS:
            raise _too_large(target)
        picture.load()
        return ImageOps.exif_transpose(picture)
    except InvalidInput:
        raise
    except Image.DecompressionBombError:
        raise _too_large(target) from None
    except Exception:  # noqa: BLE001 - Pillow's decoders raise any kind on hostile bytes
        raise InvalidInput(
            f"{target} must be a whole PNG, JPEG or WebP file", target=target
        ) from None


def _too_large(target: str) -> InvalidInput:
    return InvalidInput(f"{target} must have at most {MAX_INPUT_PIXELS:,} pixels", target=target)


def fit(picture: Image.Image, width: int, height: int, mode: str) -> StoredPicture:
    """Return ``picture`` as a PNG of ``width`` x ``height`` pixels in ``mode`` (RGB or L).

    Transparent parts become white.
    """
    if "A" in picture.getbands() or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        ground = Image.new("RGBA", seen.size, "white")
        picture = Image.alpha_composite(ground, seen)
    drawn = picture.convert(mode)
    if drawn.size != (width, height):
        drawn = drawn.resize((width, height), Image.Resampling.LANCZOS)
    drawn.info.clear()
    out = io.BytesIO()
    drawn.save(out, "PNG")
    png = out.getvalue()
    digest = hashlib.sha256(png).hexdigest()
    return StoredPicture(png, InputImage(sha256=digest, width=width, height=height))
