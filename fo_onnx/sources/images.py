"""A folder of images, one folder per class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DataNotFoundError, OptionError, PluginError, first_line
from ..limits import check_regular, limit
from ..options import DataOptions
from ..protocols import Source
from .beside import beside, given_ids
from .file_errors import naming
from .labels import Labels, check_text
from .rows import RowSource
from .structure import Structure

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what is decoded, whatever a file is called. Others are not, since Pillow starts Ghostscript on EPS."""
CHANNELS = {"RGB": 3, "L": 1}


@dataclass(frozen=True)
class ImageFolder:
    """Images as rows: float32 in [0, 1], then (x - mean) / std; sorted by path.

    The ids are the paths within the folder (``"cat/001.png"``), the labels number the class folders by name. A folder
    that holds images and no folders of them has no labels. The orientation in a photo's EXIF data is applied, and
    16-bit grey is scaled to 8 bits; of an animation the first frame is taken.

    Attributes:
        path: The folder.
        resize: Length of the shorter side, or (height, width), in pixels; bilinear, antialiased.
        crop: Side, or (height, width), in pixels, of a crop from the centre; after `resize`.
        mean: Subtracted, one number or one per channel, on the scale of [0, 1].
        std: Divided by, one number or one per channel.
        layout: ``"NCHW"`` or ``"NHWC"``.
        mode: ``"RGB"``, or ``"L"`` for grey.

    Example:
        >>> ImageFolder("flowers/val", resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).crop
        (224, 224)
    """

    path: str | Path
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    mode: Literal["RGB", "L"] = "RGB"

    def __post_init__(self) -> None:
        if self.layout not in ("NCHW", "NHWC"):
            raise OptionError(f"layout={self.layout!r} is not a choice; the choices are 'NCHW', 'NHWC'.")
        if self.mode not in CHANNELS:
            raise OptionError(f"mode={self.mode!r} is not a choice; the choices are 'RGB', 'L'.")
        if self.crop is not None:
            pair = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
            object.__setattr__(self, "crop", _pixels("crop", pair))
        if self.resize is not None:
            resize = self.resize
            pixels = _pixels("resize", (resize, resize) if isinstance(resize, int) else resize)
            object.__setattr__(self, "resize", pixels[0] if isinstance(resize, int) else pixels)
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_channel(name))

    def _per_channel(self, name: str) -> tuple[float, ...] | None:
        value = getattr(self, name)
        if value is None:
            return None
        channels = CHANNELS[self.mode]
        try:
            numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(value, dtype=np.float64)))
        except (TypeError, ValueError):
            numbers = ()
        numbers = numbers * channels if len(numbers) == 1 else numbers
        if len(numbers) != channels or not np.isfinite(numbers).all() or (name == "std" and min(numbers) <= 0):
            raise OptionError(
                f"{name}={value!r} is not usable: one finite number, or {channels} for mode={self.mode!r}, "
                f"{'above 0 ' if name == 'std' else ''}{'were' if channels > 1 else 'was'} expected."
            )
        return numbers

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to each image, as JSON types."""
        found: dict[str, Any] = {"source": "image folder", "mode": self.mode, "layout": self.layout, "scale": "1/255"}
        for name in ("resize", "crop", "mean", "std"):
            value = getattr(self, name)
            found[name] = list(value) if isinstance(value, tuple) else value
        return found

    def read(self, path: Path) -> NDArray[np.float32]:
        """One image: (channels, height, width) or (height, width, channels) float32.

        Raises:
            DataError: It is no regular file, no image of one of `FORMATS`, damaged, larger than FO_ONNX_MAX_PIXELS says, or
                smaller than the crop.
        """
        with naming(path):
            check_regular(path, DataError)
            image = self._resized(_decoded(path, self.mode))
            pixels: NDArray[Any] = self._cropped(np.asarray(image)).astype(np.float32) / np.float32(255)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if self.mean is not None:
            pixels = pixels - np.asarray(self.mean, dtype=np.float32)
        if self.std is not None:
            pixels = pixels / np.asarray(self.std, dtype=np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "NCHW" else pixels)

    def _resized(self, image: Image) -> Image:
        from PIL.Image import Resampling

        if self.resize is None:
            return image
        width, height = image.size
        if isinstance(self.resize, int):
            # source: torchvision.transforms.functional.resize; the longer side is cut to an integer, not rounded
            short, long = sorted((width, height))
            other = int(self.resize * long / short)
            size = (self.resize, other) if width <= height else (other, self.resize)
        else:
            size = (self.resize[1], self.resize[0])
        _check_pixels("resize= would make the image", size)
        return image.resize(size, Resampling.BILINEAR)

    def _cropped(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.crop is None:
            return pixels
        height, width = cast("tuple[int, int]", self.crop)
        has_height, has_width = pixels.shape[:2]
        if has_height < height or has_width < width:
            raise DataError(
                f"the image is {has_height} by {has_width} pixels, smaller than the crop of {height} by {width}; "
                "give resize= too."
            )
        # source: torchvision.transforms.functional.center_crop
        top, left = round((has_height - height) / 2), round((has_width - width) / 2)
        return pixels[top : top + height, left : left + width]


def _pixels(name: str, value: Any) -> tuple[int, int]:
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
    ):
        found = value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value
        raise OptionError(
            f"{name}={found!r} is not usable: pixels, as one positive integer or (height, width), were expected."
        )
    return value[0], value[1]


def _check_pixels(what: str, size: tuple[int, int]) -> None:
    most = limit("FO_ONNX_MAX_PIXELS")
    if size[0] * size[1] > most:
        raise DataError(
            f"{what} {size[1]} by {size[0]} pixels, more than {most} in all, which would fill the memory. If "
            "it is meant, raise the limit: FO_ONNX_MAX_PIXELS=…"
        )


def _decoded(path: Path, mode: str) -> Image:
    from PIL import Image

    try:
        return _decode(path, mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        # What a frame or a tile takes is known to Pillow alone.
        raise DataError(
            f"it is larger than Pillow decodes ({first_line(err)}). If it is meant, raise the limit: FO_ONNX_MAX_PIXELS=…"
        ) from err


def _decode(path: Path, mode: str) -> Image:
    from PIL import Image, ImageOps

    if "FO_ONNX_MAX_PIXELS" in os.environ and Image.MAX_IMAGE_PIXELS is not None:
        # Pillow's own bound holds for the whole process, as the variable does; without it, it is left as it is.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit("FO_ONNX_MAX_PIXELS"))
    with path.open("rb") as file, _opened(file) as opened:
        _check_pixels("the image is", opened.size)
        ImageOps.exif_transpose(opened, in_place=True)
        image: Image.Image = opened
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


def _opened(file: BinaryIO) -> Image:
    """An image of which nothing but the header was read.

    `PIL.Image.open` is not called: it has limits of its own, which it warns of, and which only a change for the whole
    process raises.
    """
    from PIL import Image

    Image.init()
    start = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        # Each of these is told by its first bytes; text is the reason why this Pillow cannot read the format.
        answer = accept is not None and accept(start)
        if isinstance(answer, str):
            raise DataError(f"{answer}. Install a Pillow that reads {name}, or convert the image.")
        if answer:
            file.seek(0)
            # Without its name, or Pillow would map the file, and the process would die where it is cut short meanwhile.
            return factory(file, "")
    raise DataError(f"its content is no image of the formats {', '.join(FORMATS)}. Convert it, or leave it out.")


def open_images(folder: ImageFolder, options: DataOptions) -> Source:
    """The images of a folder.

    Raises:
        DataNotFoundError: There is no such folder.
        DataError: There are no images in it, or some in class folders and some beside them.
        PluginError: Pillow is missing.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as err:
        raise PluginError("images are read by Pillow, which is not installed: pip install 'fo-onnx[images]'") from err
    root = Path(folder.path)
    with naming(root):
        if not root.is_dir():
            raise DataNotFoundError(f"there is no folder of images at {root}.")
        paths = _image_paths(root)
    if not paths:
        raise DataError(f"{root} holds no images; {', '.join(IMAGE_SUFFIXES)} were expected, in one folder per class.")
    flat = [p for p in paths if "/" not in p]
    labels = None
    if not flat:
        names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
        if options.labels is None:
            for name in names:
                check_text(
                    name, f"{root} holds a folder of a class whose name, {name!r},", "rename it, or give labels=."
                )
        number = {name: i for i, name in enumerate(names)}
        codes = np.array([number[p.split("/", 1)[0]] for p in paths], dtype=np.int64)
        labels = Labels(codes, names, "the folder's classes")
    elif len(flat) < len(paths):
        nested = next(p for p in paths if "/" in p)
        raise DataError(
            f"{root} holds images both beside folders ({flat[0]}) and within them ({nested}); either one folder per "
            "class or no folders were expected."
        )
    ids = None
    if options.ids is None:
        for path in paths:
            check_text(path, f"{root} holds an image whose name, {path!r},", "rename it, or give ids=.")
        ids = given_ids(paths, "the paths")
    return RowSource(
        lambda i: folder.read(root / paths[i]),
        len(paths),
        options,
        Structure(options),
        beside(options, ids, labels),
        made=folder.preprocessing,
        hint="Give ImageFolder(path, resize=…, crop=…) to make all images equal in size.",
    )


def _image_paths(root: Path) -> list[str]:
    """The images by their paths within the folder, sorted; a pipe or a dangling link that is called like one is among them."""

    def refuse(err: OSError) -> None:
        with naming(err.filename):
            raise err

    paths = []
    for folder, names, files in os.walk(root, onerror=refuse):
        names[:] = [n for n in names if not n.startswith(".")]
        inside = Path(folder).relative_to(root).as_posix()
        paths += [
            n if inside == "." else f"{inside}/{n}"
            for n in files
            if not n.startswith(".") and os.path.splitext(n)[1].lower() in IMAGE_SUFFIXES
        ]
    return sorted(paths)
