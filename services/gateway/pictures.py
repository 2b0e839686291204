"""Pictures in other encodings than the one that they were drawn in."""

from __future__ import annotations

import asyncio
import io
from typing import Final, Literal

from PIL import Image

from services.gateway.errors import ApiError

PictureFormat = Literal["webp", "png", "jpeg"]
UNREADABLE: Final = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow says of bytes
QUALITY: Final = 92  # of a JPEG, where nobody asks for another
_PNG: Final = b"\x89PNG"  # how a file of that kind begins; all others were drawn as WebP


async def converted(drawn: bytes, form: PictureFormat, compression: int | None = None) -> bytes:
    """A picture as it was drawn, in another encoding, with its description; `compression`: quality in percent.

    Raises ApiError 410 for what is no picture any more.
    """
    if compression is None and form == ("png" if drawn.startswith(_PNG) else "webp"):
        return drawn
    try:
        return await asyncio.to_thread(_encoded, drawn, form, compression)
    except UNREADABLE as wrong:
        raise ApiError(410, f"the picture can't be read: {wrong}", code="picture_unreadable", again=False) from None


def _encoded(picture: bytes, form: PictureFormat, compression: int | None) -> bytes:
    drawn = Image.open(io.BytesIO(picture))
    quality = {} if form == "png" else {"quality": QUALITY if compression is None else compression}
    buffer = io.BytesIO()
    drawn.convert("RGB").save(buffer, form.upper(), exif=drawn.getexif(), **quality)
    return buffer.getvalue()
