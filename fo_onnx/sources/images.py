"""A folder of images, one folder per class."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.options import DataOptions, choice
from ..contracts.source import Source
from ..errors import DataError, DataNotFoundError, OptionError, PluginError
from ..guards.limits import check_regular
from .annotations import annotate_rows
from .files import reading_data
from .labels import Labels, check_text
from .sequences import RowSource

NO_ROWS = ("desktop.ini", "thumbs.db")
"""Files of the operating system's own, which are passed over without a word, as those whose names begin with a dot are."""
_log = logging.getLogger("fo_onnx.sources")
CHANNELS = {"RGB": 3, "L": 1}


@dataclass(frozen=True)
class ImageFolder:
    """Images as rows: float32 in [0, 1], then (x - mean) / std; sorted by path.

    The ids are the paths within the folder (``"cat/001.png"``), the labels number the class folders by name. A folder
    that holds images and no folders of them has no labels. The orientation in a photo's EXIF data is applied, and
    16-bit grey is scaled to 8 bits; of an animation the first frame is taken. Files are taken by the suffixes that Pillow knows
    for AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP; others are counted in a warning of the log, except hidden ones.

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
        choice("layout", self.layout, ("NCHW", "NHWC"))
        choice("mode", self.mode, tuple(CHANNELS))
        # Sizes as (height, width), but for one shorter side; one number per channel.
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None:
                pixels = _check_size(name, value)
                object.__setattr__(self, name, value if name == "resize" and isinstance(value, int) else pixels)
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._per_channel(name, getattr(self, name)))

    def _per_channel(self, name: str, value: Any) -> tuple[float, ...]:
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
        """Return the steps that each image goes through, as JSON types."""
        steps = {name: getattr(self, name) for name in ("resize", "crop", "mean", "std")}
        steps = {name: list(value) if isinstance(value, tuple) else value for name, value in steps.items()}
        return {"source": "image folder", "mode": self.mode, "layout": self.layout, "scale": "1/255", **steps}

    def read(self, path: Path) -> NDArray[np.float32]:
        """Return one image: (channels, height, width) or (height, width, channels) float32.

        Raises:
            DataError: It is no regular file, damaged, of none of `image_decoding.FORMATS`, larger than
                FO_ONNX_MAX_PIXELS says, or smaller than the crop.
        """
        from .image_decoding import decode_image, resize_image

        with reading_data(path):
            check_regular(path, DataError)
            image = decode_image(path, self.mode)
            if self.resize is not None:
                image = resize_image(image, self.resize)
            pixels: NDArray[Any] = self._crop(np.asarray(image)).astype(np.float32) / np.float32(255)
        # On the scale of [0, 1], channels last until the end.
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if self.mean is not None:
            pixels = pixels - np.asarray(self.mean, dtype=np.float32)
        if self.std is not None:
            pixels = pixels / np.asarray(self.std, dtype=np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "NCHW" else pixels)

    def _crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
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


def _check_size(name: str, value: Any) -> tuple[int, int]:
    size = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    if not is_pair or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in size):
        raise OptionError(
            f"{name}={value!r} is not usable: pixels, as one positive integer or (height, width), were expected."
        )
    return size[0], size[1]


def open_images(folder: ImageFolder, options: DataOptions) -> Source:
    """Open the images of a folder.

    Raises:
        DataNotFoundError: There is no such folder.
        DataError: There are no images in it, or some in class folders and some beside them.
        PluginError: Pillow is missing.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as err:
        raise PluginError("images are read by Pillow, which is not installed: pip install 'fo-onnx[images]'") from err
    from .image_decoding import image_suffixes

    root = Path(folder.path)
    with reading_data(root):
        if not root.is_dir():
            raise DataNotFoundError(f"there is no folder of images at {root}.")
        paths, others = _find_images(root)
    passed_over = ", ".join(f"{suffix or 'no suffix'} ({count})" for suffix, count in others.most_common(10))
    if not paths:
        raise DataError(
            f"{root} holds no images; {', '.join(sorted(image_suffixes()))} were expected, in one folder per class. "
            f"What is there: {passed_over or 'no files'}."
        )
    if others:
        _log.warning(
            "%s: %d files are passed over, since by their suffix they are no images that are read: %s%s",
            root, sum(others.values()), passed_over, ", …" if len(others) > 10 else "",
        )  # fmt: skip
    labels = _number_folders(root, paths, options)
    # Ids are paths, unless the user has better ones.
    ids = None
    if options.ids is None:
        for path in paths:
            check_text(path, f"{root} holds an image whose name, {path!r},", "rename it, or give ids=.")
        ids = np.array(paths, dtype=object)  # each is there once
    source = RowSource(
        lambda i: folder.read(root / paths[i]),
        len(paths),
        options,
        annotate_rows(options, ids, labels),
        hint="Make all images equal in size: resize=…, crop=… (in Python of an ImageFolder).",
    )
    source.preprocessing = {**folder.preprocessing, **source.preprocessing}
    return source


def _find_images(root: Path) -> tuple[list[str], Counter[str]]:
    """Return the sorted paths of the images within the folder, also pipes and dangling links of such names; count other files.

    The count is by suffix, without those of `NO_ROWS` and whatever begins with a dot.
    """
    from .image_decoding import image_suffixes

    def refuse(err: OSError) -> None:
        with reading_data(err.filename):
            raise err

    suffixes = image_suffixes()
    paths: list[str] = []
    others: Counter[str] = Counter()
    for folder, names, files in os.walk(root, onerror=refuse):
        names[:] = [n for n in names if not n.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or name.lower() in NO_ROWS:
                continue
            if suffix in suffixes:
                paths.append((inside / name).as_posix())
            else:
                others[suffix] += 1
    return sorted(paths), others


def _number_folders(root: Path, paths: list[str], options: DataOptions) -> Labels | None:
    """Return the number of each image's class folder; ``None`` if the images are in no folders."""
    outside = [p for p in paths if "/" not in p]
    if len(outside) == len(paths):
        return None
    if outside:
        inside = next(p for p in paths if "/" in p)
        raise DataError(
            f"{root} holds images both beside folders ({outside[0]}) and within them ({inside}); either one folder per "
            "class or no folders were expected."
        )
    names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if options.labels is None:
        for name in names:
            check_text(name, f"{root} holds a folder of a class whose name, {name!r},", "rename it, or give labels=.")
    numbers = {name: i for i, name in enumerate(names)}
    codes = np.array([numbers[p.split("/", 1)[0]] for p in paths], dtype=np.int64)
    # Models are trained on such folders with columns in the order of their names.
    return Labels(codes, names, own_numbers=True)
