"""Images of anybody, decoded by Pillow: formats that start no other program, within a limit on pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError, first_line
from ..guards.limits import limit

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what is decoded, whatever a file is called. Others are not: Pillow starts Ghostscript on EPS."""


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that are read, in lower case: those that Pillow registers for `FORMATS`."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def decode_image(path: Path, mode: str) -> Image.Image:
    """Return the image in a file, upright and in Pillow's `mode`; of an animation the first frame.

    Raises:
        DataError: It is too large, of none of `FORMATS`, or of pixels whose scale is unknown.
        Exception: What Pillow raises for a damaged one.
    """
    if "FO_ONNX_MAX_PIXELS" in os.environ and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow's own bound holds for the whole process, as the variable does; without it, it is left as it is.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit("FO_ONNX_MAX_PIXELS"))
    try:
        with path.open("rb") as file, _open_image(file) as opened:
            _check_pixels("the image is", opened.size)
            ImageOps.exif_transpose(opened, in_place=True)
            return _to_mode(opened, mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        # What a frame or a tile takes is known to Pillow alone.
        raise DataError(
            f"it is larger than Pillow decodes ({first_line(err)}). If it is meant, raise the limit: "
            "FO_ONNX_MAX_PIXELS=…"
        ) from err


def _open_image(file: BinaryIO) -> Image.Image:
    """Return an image of which nothing but the header was read.

    `PIL.Image.open` is not called: it has limits of its own, which it warns of, and which only a change for the whole
    process raises.
    """
    Image.init()
    start = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))  # which formats there are depends on Pillow's version
        # Each of these is known by its first bytes; text is the reason why this Pillow cannot read the format.
        answer = accept is not None and accept(start)
        if isinstance(answer, str):
            raise DataError(f"{answer}. Install a Pillow that reads {name}, or convert the image.")
        if answer and factory is not None:
            file.seek(0)
            # Without its name, or Pillow would map the file, and the process would die if it is cut short meanwhile.
            return factory(file, "")
    raise DataError(f"its content is no image of the formats {', '.join(FORMATS)}. Convert it, or leave it out.")


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        grey = np.asarray(image, dtype=np.float32) / np.float32(257)
        image = Image.fromarray(grey.round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"the image's pixels are of Pillow's mode {image.mode!r}, whose scale is unknown; 8 or 16 bits were "
            "expected."
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    # A large image takes memory enough once.
    return image if image.mode == mode else image.convert(mode)


def resize_image(image: Image.Image, size: int | tuple[int, int]) -> Image.Image:
    """Return an image whose shorter side is `size` pixels, or whose (height, width) is; bilinear, antialiased."""
    width, height = image.size
    if isinstance(size, int):
        # source: torchvision.transforms.functional.resize; the longer side is cut to an integer, not rounded
        short, long = sorted((width, height))
        other = int(size * long / short)
        size = (other, size) if width <= height else (size, other)
    _check_pixels("resize= would make the image", (size[1], size[0]))
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _check_pixels(what: str, size: tuple[int, int]) -> None:
    """Raise a `DataError` for more than FO_ONNX_MAX_PIXELS pixels; `size` is (width, height), as in Pillow."""
    most = limit("FO_ONNX_MAX_PIXELS")
    if size[0] * size[1] > most:
        raise DataError(
            f"{what} {size[1]} by {size[0]} pixels, more than {most} in all, which would fill the memory. If "
            "it is meant, raise the limit: FO_ONNX_MAX_PIXELS=…"
        )
