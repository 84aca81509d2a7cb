"""Whose a file or folder is: what fo-onnx did not make is never removed or replaced.

A folder is ours only if its marker says so, and in it only the entries that its owner names. Links are never ours.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import StoreExistsError
from ...version import __version__
from .operations import capitalise, os_errors

TEMPORARY = ".tmp"
"""The end of the name of every file that is not finished."""
LOCK = ".lock"
MARKERS = ("run.json", "manifest.json", "fo-onnx.json")
"""Files that can mark a folder as ours: those of a run, and that of every other folder."""
KINDS = KIND_RUN, KIND_WORK, KIND_TEMPORARY, KIND_CACHED, KIND_MEASUREMENTS = tuple(
    f"fo-onnx {what}" for what in ("run", "work folder", "temporary folder", "cached export", "measurements")
)
MARKER_START = b'{"kind": "fo-onnx '
"""The first bytes of every marker, by which a killed beginning is recognised."""
_MARKER_SCHEMA = 1
_LARGEST_MARKER_BYTES = 256 * 2**20


def marker(kind: str, **more: Any) -> dict[str, Any]:
    """Return what marks a folder as ours, to be written as JSON into one of `MARKERS`."""
    return {"kind": kind, "schema": _MARKER_SCHEMA, "fo_onnx": __version__, **more}


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return the marker of a folder of ours; ``None`` for every other folder, a link, and what is no folder."""
    if os.path.islink(folder):
        return None
    for name in MARKERS:
        path = folder / name
        with suppress(OSError, ValueError, RecursionError):
            # A marker that is huge, or no regular file, is none of ours, and reading it could take for ever.
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_MARKER_BYTES:
                continue
            table = json.loads(path.read_bytes())
            if isinstance(table, dict) and table.get("kind") in KINDS and type(table.get("schema")) is int:
                return table
    return None


def foreign_entries(folder: Path, entries: Collection[str]) -> list[str]:
    """Return what is in a folder and not its marker, its lock or one of `entries`; links are never one of these.

    `entries` are relative names of files, one folder deep at most (``"data/part-0.parquet"``).
    """
    own_files = {*entries, *MARKERS, *(name + TEMPORARY for name in MARKERS), LOCK}
    own_folders = {name.split("/")[0] for name in entries if "/" in name}
    foreign = []
    with os_errors(folder, "looking into a folder"), os.scandir(folder) as top:
        for entry in sorted(top, key=lambda e: e.name):
            # Links are foreign, whatever they point at.
            if entry.name in own_folders and entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as inner:
                    names = {f"{entry.name}/{e.name}": e for e in inner}
                foreign += [
                    n for n, e in sorted(names.items()) if n not in own_files or not e.is_file(follow_symlinks=False)
                ]
            elif entry.name not in own_files or not entry.is_file(follow_symlinks=False):
                foreign.append(entry.name)
    return foreign


def may_begin_in(folder: Path) -> bool:
    """Return whether a folder holds nothing, or only what a killed beginning leaves: our lock, the start of a marker."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return False
    with os_errors(folder, "looking into a folder"), os.scandir(folder) as entries:
        return all(e.is_file(follow_symlinks=False) and _is_of_a_beginning(Path(e.path)) for e in entries)


def _is_of_a_beginning(path: Path) -> bool:
    if path.name == LOCK:
        return path.lstat().st_size == 0
    if path.name not in [name + TEMPORARY for name in MARKERS]:
        return False
    with path.open("rb") as file:
        start = file.read(len(MARKER_START))
    return MARKER_START.startswith(start)


def require_replaceable(path: Path, replaces: Callable[[Path], bool] | None, doing: str) -> None:
    """Refuse to write over what is not ours.

    Args:
        path: The name that is wanted.
        replaces: Says whether a regular file there is one of ours that may be replaced. Without it, every file in a
            folder of ours may be, and no other.
        doing: What is being done, for the message.

    Raises:
        StoreExistsError: A link, a folder, a device, or a file that is not ours is there.
    """
    beginning = f"{capitalise(doing)} at {path}"
    with os_errors(path, doing):
        # Not `exists`, which follows links.
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if stat.S_ISLNK(mode):
        raise StoreExistsError(
            f"{beginning}: a link of that name is there, which is neither followed nor replaced. Remove it, or choose another "
            "name."
        )
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "something that is no regular file"
        raise StoreExistsError(f"{beginning}: {what} of that name is there. Choose another name.")
    if not (replaces(path) if replaces else read_marker(path.parent) is not None):
        raise StoreExistsError(
            f"{beginning}: a file is there that fo-onnx did not write (or that is damaged), and such files are never replaced. "
            "Remove it, or choose another name."
        )


def require_ours(folder: Path, doing: str) -> None:
    """Raise `StoreExistsError` if a folder is not ours."""
    if read_marker(folder) is None:
        what = "a link" if folder.is_symlink() else "no folder with the marker of fo-onnx"
        raise StoreExistsError(
            f"{capitalise(doing)} at {folder}: it is {what}, and what fo-onnx did not make is never removed or replaced. Remove "
            "it yourself, or choose another name."
        )


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message, cut short if there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
