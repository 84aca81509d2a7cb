"""Folders in which something is made, and which are gone when it is: next to a target, or in the temporary directory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import StoreError, StoreExistsError
from .folders import begin_folder, lock_folder, remove_folder, remove_marks, remove_remains, write_marker
from .operations import capitalise, operations, os_errors
from .ownership import KIND_TEMPORARY, KIND_WORK, LOCK, MARKERS, marker, may_begin_in, read_marker

WORK_FILES = ("assembled.tmp", "data.tmp", "beside.tmp")
"""Files that may be begun in a work folder."""
_TEMPORARY_PREFIX = "fo-onnx-"
_UNMARKED_S = 60.0
"""A temporary folder that is not marked after this time was left by a kill."""


@contextmanager
def work_folder(target: Path, doing: str) -> Iterator[Path]:
    """Give a folder of ours next to a target, ``<name>.partial``, in which its file is written; remove it at the end.

    What a killed process left there is removed when the next one begins.

    Raises:
        StoreExistsError: What is there under that name is not such a folder.
        StoreError: Another process is writing there.
    """
    folder = target.with_name(f"{target.name}.partial")
    remains = read_marker(folder)
    if remains is not None and remains["kind"] == KIND_WORK:
        with lock_folder(folder):
            remove_folder(folder, WORK_FILES, doing)
    elif os.path.lexists(folder) and not may_begin_in(folder):
        what = (
            "an unfinished run is there; resume=True continues it" if remains else "it is there, and is not of fo-onnx"
        )
        raise StoreExistsError(
            f"{capitalise(doing)} at {target}: {folder} is needed, but {what}. Remove it, or choose another name."
        )
    remove_remains(target.parent, lambda _: WORK_FILES)
    lock = begin_folder(folder, MARKERS[-1], marker(KIND_WORK), doing)
    try:
        yield folder
    finally:
        # What cannot be removed now is removed by the next one, and hides no error.
        with suppress(StoreError):
            remove_folder(folder, WORK_FILES, doing)
        lock.release()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a private folder in the temporary directory, in which everything is ours; remove it at the end.

    What killed processes of this user left there is removed first.
    """
    remove_temporary_remains()
    doing = "making a temporary folder"
    with os_errors(Path(tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")), doing):
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX))
    # The lock comes first: a folder with a marker and a free lock is remains.
    with lock_folder(folder):
        write_marker(folder, MARKERS[-1], marker(KIND_TEMPORARY), doing)
        try:
            yield folder
        finally:
            with suppress(StoreError):
                _remove_temporary(folder)


def remove_temporary_remains() -> int:
    """Remove the temporary folders that killed processes of this user left, and return how many."""
    removed = 0
    with suppress(OSError):
        for folder in list(Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*")):
            table = read_marker(folder)
            status = folder.lstat()
            if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
                continue
            # One that is not marked yet may have been made this very moment.
            unmarked = table is None and may_begin_in(folder) and time.time() - status.st_mtime > _UNMARKED_S
            if not unmarked and (table is None or table["kind"] != KIND_TEMPORARY):
                continue
            # One that is in use is locked.
            with suppress(StoreError), lock_folder(folder):
                _remove_temporary(folder)
                removed += 1
    return removed


def _remove_temporary(folder: Path) -> None:
    with os_errors(folder, "removing a temporary folder"):
        for path in [p for p in folder.iterdir() if p.name not in (LOCK, *MARKERS)]:
            if path.is_dir() and not path.is_symlink():
                operations.remove_tree(path)
            else:
                operations.remove(path)
        remove_marks(folder)
