"""The operating system, as the file room calls it: the only module with calls that write, replace or remove.

A test replaces a method of `operations` to make any single step fail.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import StoreError, StoreWriteError


class Operations:
    """Calls of the operating system."""

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        """Open `path`, created if `flags` say so, and return its descriptor; a link is not followed."""
        return os.open(
            path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), mode
        )

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write the beginning of `data`, and return how many bytes of it."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut a file off."""
        os.ftruncate(descriptor, size_bytes)

    def replace(self, source: Path, target: Path) -> None:
        """Rename, in one step, over a file that may be there."""
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in `folder` are on the disk. Windows has no such call and needs none."""
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path, mode: int = 0o777) -> None:
        """Make one folder; it may be there."""
        folder.mkdir(mode, exist_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file; it may be gone."""
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """Remove an empty folder; it may be gone."""
        with suppress(FileNotFoundError):
            folder.rmdir()

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder and what is in it; links in it go, what they point at stays."""
        shutil.rmtree(folder)


operations = Operations()

_ADVICE = {
    errno.ENOSPC: "Free space on that disk and try again.",
    errno.EDQUOT: "Your disk quota is used up: free space and try again.",
    errno.EACCES: "Choose a place where you may write, or change its rights.",
    errno.EPERM: "Choose a place where you may write, or change its rights.",
    errno.EROFS: "That disk is read-only: choose another place.",
    errno.ENOENT: "The folder is gone, or was never there: make it and try again.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "There is a link of that name, which is not followed: remove it, or choose another name.",
}


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` into a `StoreWriteError` that says what was being done (`doing`), why it failed, and what to do."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError) as err:
        code = err.errno if isinstance(err, OSError) else None
        reason = (err.strerror if isinstance(err, OSError) else None) or err
        advice = _ADVICE.get(code or 0, "Look at the disk and the rights of the folder, and try again.")
        new = StoreWriteError(f"{capitalise(doing)} failed at {path}: {reason}. {advice}")
        new.errno, new.filename = code, str(path)
        raise new from err


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while len(view):
        view = view[operations.write(descriptor, view) :]


def capitalise(doing: str) -> str:
    """Return what is being done as the beginning of a message: "writing rows" as "Writing rows"."""
    return f"{doing[:1].upper()}{doing[1:]}"
