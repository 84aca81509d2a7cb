"""Limits on what a file may ask for: a small file must not take all memory, or stand for a device that never ends.

Each limit has a default that no honest file of this project's users comes near, and an environment variable that raises
it for a file that is meant.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ..errors import FoOnnxError, OptionError

DEFAULTS: Mapping[str, int] = {
    "FO_ONNX_MAX_PIXELS": 178_956_970,
    "FO_ONNX_MAX_UNFOLD": 1_000,
    "FO_ONNX_MAX_HEADER_BYTES": 100_000_000,
    "FO_ONNX_MAX_GRAPH_NODES": 100_000,
}
"""The limits by the variable that raises them: pixels of one image (Pillow's own bound against decompression bombs);
bytes that one byte of a compressed or textual file may unfold to; bytes of a header or of metadata; nodes that a graph
may have once its functions are unfolded."""
FREE_BYTES = 64 * 2**20
"""Any file may unfold to this much, however small it is."""


def limit(variable: str, default: int | None = None) -> int:
    """Return the limit that is in force. Raise `OptionError` if the environment gives something that is no number."""
    value = os.environ.get(variable)
    if value is None:
        return DEFAULTS[variable] if default is None else default
    if not value.isdecimal():
        raise OptionError(f"the environment says {variable}={value!r}; a whole number was expected.")
    return int(value)


def check_unfolding(
    path: Path,
    wanted_bytes: int,
    file_bytes: int,
    error: type[FoOnnxError],
    what: str,
    advice: str = "",
    *,
    ratio: int | None = None,
) -> None:
    """Refuse a file whose content would take much more memory than the file, or its part that unfolds, has bytes.

    The message names `what` unfolds, and ends with `advice`. `ratio` is the limit of this kind of file, if it is not the
    general one; the environment raises both.
    """
    # Small files may unfold by any factor.
    ratio = limit("FO_ONNX_MAX_UNFOLD", ratio)
    if wanted_bytes > max(FREE_BYTES, ratio * file_bytes):
        raise error(
            f"Reading {path}: {what} of {file_bytes} bytes would unfold to {wanted_bytes}, more than {ratio} times as "
            "much; such a file is damaged, or made to fill the memory. If it is meant, raise the limit: "
            f"FO_ONNX_MAX_UNFOLD=…{advice and f'. {advice}'}"
        )


def check_regular(path: Path, error: type[FoOnnxError], doing: str = "Reading") -> None:
    """Refuse what is there and no regular file: a pipe, a socket, a device such as /dev/zero, a folder.

    A link is followed, since data may lie behind one. Reading a pipe would wait for ever, and a device may never end.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # the reader says what is wrong
    if not stat.S_ISREG(mode):
        kinds = [(stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket")]
        kind = next((name for is_kind, name in kinds if is_kind(mode)), "a device")
        raise error(f"{doing} {path}: {kind}; a regular file was expected. Copy its content into a file first.")


def check_sparse(path: Path, error: type[FoOnnxError], advice: str = "") -> None:
    """Refuse a file of holes, which takes next to no room on the disk and would fill the memory."""
    status = path.stat()
    if status.st_size <= FREE_BYTES:
        return
    disk_bytes = getattr(status, "st_blocks", 0) * 512
    if not disk_bytes and not _is_one_hole(path):
        return  # not every file system says how much a file takes
    check_unfolding(path, status.st_size, max(disk_bytes, 1), error, "a sparse file", advice)


def _is_one_hole(path: Path) -> bool:
    if not hasattr(os, "SEEK_DATA"):
        return False
    with path.open("rb") as file:
        try:
            file.seek(0, os.SEEK_DATA)
        except OSError as err:
            return err.errno == errno.ENXIO
    return False
