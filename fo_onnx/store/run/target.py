"""The place of a run, and everything that is refused there before a row is run."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import StoreError, StoreExistsError, StoreNotFoundError, StoreWriteError
from .. import files
from ..formats.registry import FORMATS, is_result, target_format
from .journal import NAME as JOURNAL
from .journal import list_shard_files
from .shard_reader import DATA, ERRORS, INPUTS, MANIFEST, RUN, read_run
from .shard_writer import is_list_of_bad_rows

COPY = {"copy": True}
"""The settings of a folder that is a copy of rows which lie elsewhere: half of one is worth nothing."""


def list_own_entries(folder: Path) -> list[str]:
    """Return the files that may be in a run folder besides its marker and lock, as its journal accounts for them."""
    shards = sorted(list_shard_files(folder))
    unfinished = [name + files.TEMPORARY for name in (JOURNAL, *shards)]
    return [*(f"{DATA}/{name}" for name in shards), *unfinished, *files.WORK_FILES, ERRORS, INPUTS, JOURNAL]


def is_run(path: Path) -> bool:
    """Return whether a folder is marked as one of a run."""
    marker = files.read_marker(path)
    return marker is not None and marker["kind"] == files.KIND_RUN


def partial_path(target: Path) -> Path:
    """Return the folder next to a target that a run is written through."""
    return target.with_name(f"{target.name}.partial")


def errors_path(target: Path) -> Path:
    """Return the list of bad rows next to a target."""
    return target.with_name(f"{target.name}.errors.jsonl")


def check_errors_path(target: Path) -> None:
    """Raise a `StoreExistsError` if the list of bad rows would take the place of what is not ours."""
    if target_format(target) is not None:
        files.require_replaceable(errors_path(target), is_list_of_bad_rows, "writing down bad rows")


def choose_folder(target: Path, *, overwrite: bool) -> Path:
    """Return where the run folder of a new run goes, and refuse everything that can be refused before a row is run.

    The arguments and errors are those of `RunFolder.create`.
    """
    _check_name(target)
    partial = partial_path(target)
    # A file: what is there may be replaced if it is a result of ours.
    if target_format(target) is not None:
        # What is not ours is never replaced, so that overwrite=True would be no way out.
        files.require_replaceable(target, is_result, "writing the result")
        if target.exists() and not overwrite:
            raise StoreExistsError(
                f"Writing {target}: it is there already. Replace it with overwrite=True, or choose another name."
            )
        _refuse_unfinished(partial, overwrite)
        return partial
    # A run folder: the target itself, unless a finished one is there.
    path = target
    if os.path.lexists(target):
        if target.is_symlink() or not target.is_dir():
            what = "a link" if target.is_symlink() else "a file"
            raise StoreExistsError(
                f"Writing {target}: a name without a suffix is a run folder, but {what} is there. Choose another name."
            )
        if is_run(target) and (target / MANIFEST).exists():
            if not overwrite:
                raise StoreExistsError(
                    f"Writing {target}: a finished run folder is there already. Replace it with overwrite=True, or "
                    "choose another name."
                )
            # It stays until the new one is complete.
            _refuse_foreign(target)
            path = partial
    _refuse_unfinished(path, overwrite)
    _refuse_unfinished(partial, overwrite)
    return path


def _check_name(target: Path) -> None:
    if not target.name or target.name == "-" or target.name in FORMATS:
        raise StoreError(
            f"Writing results to {str(target)!r}: the name of a file or folder was expected, such as net.parquet."
        )
    # The longest name that a run needs is that of its list of bad rows.
    try:
        size_bytes = len(os.fsencode(errors_path(target).name))
        has_folder = target.parent.is_dir()
    except ValueError as err:
        raise StoreError(f"Writing results to {str(target)!r}: it is no name of a file ({err}).") from err
    if not has_folder:
        raise StoreNotFoundError(
            f"Writing {target}: the folder {target.parent} is not there; make it first, or choose another."
        )
    longest = os.pathconf(target.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if size_bytes > longest:
        raise StoreWriteError(
            f"Writing {target}: the name has {len(os.fsencode(target.name))} bytes, and with what a run needs beside it "
            f"({errors_path(Path('…')).name}) more than the {longest} that this disk allows. Choose a shorter name."
        )
    if not os.access(target.parent, os.W_OK):
        raise StoreWriteError(
            f"Writing {target}: the folder {target.parent} does not let you write. Choose another place."
        )


def _refuse_unfinished(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        what = "a link" if path.is_symlink() else "a file"
        raise StoreExistsError(f"Writing {path}: a run folder of that name is needed, but {what} is there. Remove it.")
    # What a kill left of a beginning, and a work folder, hold no rows.
    if not is_run(path):
        if files.may_begin_in(path) or (files.read_marker(path) or {}).get("kind") == files.KIND_WORK:
            return
        foreign = files.foreign_entries(path, ())
        names = files.list_names(foreign) or f"a {RUN} or {MANIFEST} without the marker of fo-onnx"
        raise StoreExistsError(
            f"Writing {path}: the folder holds files that are of no run ({names}), which are never removed. Choose another "
            "name."
        )
    if not overwrite and not _is_copy(path):
        raise StoreExistsError(
            f"Writing {path}: an unfinished run is there. resume=True continues it, overwrite=True begins anew."
        )
    _refuse_foreign(path)


def _is_copy(path: Path) -> bool:
    try:
        return bool(read_run(path)["settings"] == COPY) and not (path / MANIFEST).exists()
    except StoreError:
        return False


def _refuse_foreign(path: Path) -> None:
    if foreign := files.foreign_entries(path, list_own_entries(path)):
        raise StoreExistsError(
            f"Writing {path}: the run folder there also holds what is not of its run and is never removed: "
            f"{files.list_names(foreign)}. Move that elsewhere, or choose another name."
        )
