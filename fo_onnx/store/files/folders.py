"""Folders of ours: marked when they are made, locked while they are written, and removed under another name.

In all functions `doing` is what is being done, for messages, and `entries` are names of files relative to a folder of ours,
one folder deep at most: those that its owner knows, besides marker and lock.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import StoreError, StoreExistsError, StoreWriteError
from .operations import capitalise, operations, os_errors
from .output import OutputFile
from .ownership import (
    LOCK,
    MARKER_START,
    MARKERS,
    TEMPORARY,
    foreign_entries,
    list_names,
    may_begin_in,
    read_marker,
    require_ours,
    require_replaceable,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger("fo_onnx.store")
_REMOVED = ".fo-onnx-removed-"
"""The beginning of the name of a folder that is being removed."""


def make_folder(folder: Path, doing: str, *, private: bool = False) -> None:
    """Make a folder whose parent is there, durably. One that is there stays as it is; a link is refused."""
    with os_errors(folder, doing):
        if folder.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not folder.is_dir():
            operations.make_folder(folder, *((0o700,) if private else ()))
            operations.sync_folder(folder.parent)


def write_marker(folder: Path, name: str, table: dict[str, Any], doing: str, *, private: bool = False) -> None:
    """Mark a folder that was just made, or that `may_begin_in` accepts, as ours.

    Args:
        folder: The folder.
        name: One of `MARKERS`.
        table: What `marker` gives, and more, as JSON types.
        doing: What is being done.
        private: Whether nobody else may read it.
    """
    text = json.dumps(table).encode()
    assert text.startswith(MARKER_START), "a killed beginning is known by how its marker begins"
    with OutputFile(folder / name, doing, private=private, marks_folder=True) as file:
        file.write(text)


def take_lock(folder: Path, wait_s: float = 0) -> BaseFileLock:
    """Lock a folder for one writer, waiting `wait_s` for another one to end; the lock is to be released.

    Raises:
        StoreError: Another process has it.
        StoreWriteError: The operating system refuses.
        StoreExistsError: The file that would be the lock is somebody else's.
    """
    from filelock import FileLock, Timeout

    # The lock is an empty file; anything else of that name is somebody's.
    path = folder / LOCK
    with os_errors(path, "locking a folder"):
        if os.path.lexists(path) and not (stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size == 0):
            raise StoreExistsError(f"Opening {folder}: {LOCK} in it is no lock of fo-onnx. Choose another name.")
    lock = FileLock(path, timeout=wait_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout as err:
        raise StoreError(
            f"Opening {folder}: another process is writing there. Wait until it ends, or choose another name."
        ) from err
    except (OSError, NotImplementedError) as err:
        raise StoreWriteError(
            f"Opening {folder}: its lock cannot be taken ({getattr(err, 'strerror', None) or err}). Look at the rights of "
            "the folder."
        ) from err
    return lock


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs; see `take_lock`."""
    lock = take_lock(folder)
    try:
        yield
    finally:
        lock.release()


def begin_folder(folder: Path, name: str, table: dict[str, Any], doing: str) -> BaseFileLock:
    """Make a folder, or take one that `may_begin_in` accepts, lock it and mark it as ours, as `write_marker` does.

    After an error nothing of it is left. The lock is to be released.

    Raises:
        StoreError: Another process has it.
        StoreWriteError: The operating system refuses.
    """
    is_new, is_ours, lock = not os.path.lexists(folder), False, None
    try:
        make_folder(folder, doing)
        lock = take_lock(folder)
        if not may_begin_in(folder):
            raise StoreError(f"Opening {folder}: another process has just begun to write there. Choose another name.")
        is_ours = True
        write_marker(folder, name, table, doing)
    except BaseException:
        # One that cannot be removed now may be begun in.
        with suppress(StoreError):
            if is_ours and read_marker(folder) is not None:
                remove_folder(folder, (), doing)
            elif is_new and may_begin_in(folder):
                with os_errors(folder, doing):
                    remove_marks(folder)
        if lock is not None:
            lock.release()
        raise
    return lock


def move_folder(folder: Path, target: Path, doing: str) -> None:
    """Give a folder of ours another name, which must be free, and wait until the names are on the disk."""
    require_ours(folder, doing)
    with os_errors(target, doing):
        if os.path.lexists(target):
            raise StoreExistsError(f"{capitalise(doing)} at {target}: it is there. Choose another name.")
        operations.replace(folder, target)
        operations.sync_folder(target.parent)


def remove_entries(folder: Path, entries: Collection[str], doing: str) -> None:
    """Remove files of a folder of ours; each may be gone.

    Raises:
        StoreExistsError: The folder is not ours, or an entry or its folder is a link or no regular file; nothing was
            removed.
    """
    require_ours(folder, doing)
    # All are looked at before the first is removed.
    for name in entries:
        path = folder / name
        with os_errors(path, doing):
            if path.parent != folder and path.parent.is_symlink():
                raise StoreExistsError(
                    f"{capitalise(doing)} at {path}: {path.parent} is a link, which is never followed."
                )
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise StoreExistsError(f"{capitalise(doing)} at {path}: it is no regular file, and nothing of fo-onnx.")
    for name in entries:
        with os_errors(folder / name, doing):
            operations.remove(folder / name)


def remove_file(path: Path, removes: Callable[[Path], bool], doing: str) -> None:
    """Remove a file that `removes` knows as ours; it may be gone. Raises `StoreExistsError` for any other, and a link."""
    require_replaceable(path, removes, doing)
    with os_errors(path, doing):
        operations.remove(path)


def remove_folder(folder: Path, entries: Collection[str], doing: str) -> None:
    """Remove a folder of ours whole: it is moved aside first, so that a kill leaves no half of it under its name.

    Raises:
        StoreExistsError: It has no marker of ours, or holds something else, which is named; nothing was removed.
        StoreWriteError: The operating system refuses.
    """
    _remove_moved(_move_aside(folder, entries, doing), entries, doing)


def replace_folder(new: Path, target: Path, entries: Collection[str], doing: str) -> None:
    """Put the folder `new` of ours in place of `target`, another one of ours with these entries, which is removed.

    A kill in between leaves `new` whole; whoever opens it then only has to rename it.

    Raises:
        StoreExistsError: One of the two is not ours, or `target` holds something else, which is named.
    """
    require_ours(new, doing)
    # The target's name is free only between these two renames.
    aside = _move_aside(target, entries, doing)
    move_folder(new, target, doing)
    try:
        _remove_moved(aside, entries, doing)
    except StoreError as err:
        # What was asked for is done; the next run that writes here removes the rest.
        log.warning("%s is in its place, but what it replaced is not removed yet: %s", target, err)


def remove_remains(parent: Path, entries_of: Callable[[Path], Collection[str]]) -> int:
    """End removals in `parent` that a kill cut short, and return how many; `entries_of` names the entries of a folder."""
    removed = 0
    with suppress(OSError):
        for folder in list(parent.glob(f"{_REMOVED}*")):
            try:
                # The marker goes last: a folder without it is empty, or not ours.
                if read_marker(folder) is None:
                    if may_begin_in(folder) and not (folder / LOCK).exists():
                        operations.remove_folder(folder)
                        removed += 1
                elif not foreign_entries(folder, entries := entries_of(folder)):
                    _remove_moved(folder, entries, "removing remains")
                    removed += 1
            except (OSError, StoreError) as err:
                log.info("%s stays: %s", folder, err)
    return removed


def _move_aside(folder: Path, entries: Collection[str], doing: str) -> Path:
    require_ours(folder, doing)
    if foreign := foreign_entries(folder, entries):
        raise StoreExistsError(
            f"{capitalise(doing)} at {folder}: it holds what is not of fo-onnx and is never removed: "
            f"{list_names(foreign)}. Move that elsewhere, or choose another name."
        )
    aside = folder.with_name(f"{_REMOVED}{os.urandom(8).hex()}")
    move_folder(folder, aside, doing)
    return aside


def _remove_moved(folder: Path, entries: Collection[str], doing: str) -> None:
    """Remove the files, then the folders that they lie in, then the lock, and the marker last of all."""
    with os_errors(folder, doing):
        for name in entries:
            operations.remove(folder / name)
        for name in sorted({name.split("/")[0] for name in entries if "/" in name}):
            operations.remove_folder(folder / name)
        remove_marks(folder)


def remove_marks(folder: Path) -> None:
    """Remove the lock, then the marker, last of all, then the folder."""
    for name in (*(name + TEMPORARY for name in MARKERS), LOCK, *reversed(MARKERS)):
        operations.remove(folder / name)
    operations.remove_folder(folder)
