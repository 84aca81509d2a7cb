"""The file room, the only one that writes, replaces and removes. It never touches what is not of fo-onnx."""

# One place for callers; packed, since nothing happens here.
# fmt: off
# isort: off
from .folders import (
    begin_folder, lock_folder, make_folder, move_folder, remove_entries, remove_file, remove_folder,
    remove_remains, replace_folder, take_lock, write_marker,
)
from .operations import Operations, operations, os_errors
from .output import OutputFile, copy, write_at, write_bytes
from .ownership import (
    KIND_CACHED, KIND_MEASUREMENTS, KIND_RUN, KIND_TEMPORARY, KIND_WORK, LOCK, MARKERS, TEMPORARY, foreign_entries,
    list_names, marker, may_begin_in, read_marker, require_replaceable,
)
from .work_folders import WORK_FILES, remove_temporary_remains, temporary_folder, work_folder

__all__ = [
    "KIND_CACHED", "KIND_MEASUREMENTS", "KIND_RUN", "KIND_TEMPORARY", "KIND_WORK", "LOCK", "MARKERS", "TEMPORARY", "WORK_FILES",
    "Operations", "OutputFile", "begin_folder", "copy", "foreign_entries", "list_names",
    "lock_folder", "make_folder", "marker", "may_begin_in", "move_folder", "operations", "os_errors", "read_marker",
    "remove_entries", "remove_file", "remove_folder", "remove_remains", "remove_temporary_remains", "replace_folder",
    "require_replaceable", "take_lock", "temporary_folder", "work_folder", "write_at", "write_bytes", "write_marker",
]
