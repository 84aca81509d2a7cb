"""An export is put into its place: the file and its external data appear as a pair, or not at all."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, StoreError
from ..models.onnx_file import external_locations, file_sha256, rename_external_data
from ..models.onnx_model import LoadedOnnx, OnnxModel, describe, is_export
from ..store import files

log = logging.getLogger("fo_onnx.engine")
_DOING = "exporting"
_DIGITS, _DATA = 16, ".data"
_DATA_NAME = re.compile(rf"(?P<model>.+\.onnx)\.(?P<digest>[0-9a-f]{{{_DIGITS}}}){re.escape(_DATA)}", re.DOTALL)


def export_path(path: str | os.PathLike[str] | None, name: str, *, overwrite: bool) -> Path:
    """Return where an export goes, checked before anything is converted.

    Raises:
        ModelError: It is no ``.onnx`` path, its folder is missing, or it exists and `overwrite` is false.
        StoreExistsError: What is there is no export of fo-onnx, and such things are never replaced.
    """
    target = Path(f"{name}.onnx" if path is None else path)
    if target.suffix != ".onnx":
        raise ModelError(f"exporting to {target}: a path that ends in .onnx was expected.")
    if not target.parent.is_dir():
        raise ModelError(f"exporting to {target}: the folder {target.parent} does not exist. Make it first.")
    with files.os_errors(target, _DOING):
        there = target.exists() or target.is_symlink()
    # What is not ours is never replaced, so that overwrite=True would be no way out.
    files.require_replaceable(target, is_export, _DOING)
    if there and not overwrite:
        raise ModelError(
            f"exporting to {target}: it exists already. Say overwrite=True (--overwrite), or choose another name."
        )
    return target


def publish(export: LoadedOnnx, target: Path, provenance: dict[str, Any]) -> OnnxModel:
    """Put an export from a temporary folder into its place, whole, with its provenance in its metadata.

    The file and its external data appear as a pair: data have a digest of their content in their name, and are there
    before the file that names them is; those of an earlier export are removed after it. A kill leaves the old pair or the
    new one whole.

    Args:
        export: The export. Its graph is changed.
        target: Where it goes.
        provenance: What it was exported from, and how it compared.

    Raises:
        StoreExistsError: What is at `target`, or where its data would lie, is not of fo-onnx.
        StoreWriteError: The operating system refuses.
    """
    proto, folder = export.proto, export.model.path.parent
    sources = {location: folder / location for location in external_locations(proto)}
    digests = {location: file_sha256(file) for location, file in sources.items()}
    names = {location: f"{target.name}.{digest[:_DIGITS]}{_DATA}" for location, digest in digests.items()}
    rename_external_data(proto, names)
    describe(proto, replace(export.model, provenance=provenance), list(dict.fromkeys(digests.values())))
    with files.work_folder(target, _DOING) as work:
        assembled, data = (work / name for name in files.WORK_FILES[:2])
        for location, file in sources.items():
            data_target = target.parent / names[location]
            # An earlier export of the same weights has left it, or stands there yet.
            files.require_replaceable(data_target, _is_data, _DOING)
            if not data_target.exists():
                files.copy(file, data_target, _DOING, temporary=data)
        files.write_bytes(target, proto.SerializeToString(), _DOING, temporary=assembled, replaces=is_export)
    _remove_old_data(target, set(names.values()))
    return OnnxModel.open(target)


def _remove_old_data(target: Path, new: Collection[str]) -> None:
    """Remove the data of earlier exports to `target`: files called so whose content is what their name says."""
    for file in target.parent.iterdir():
        digits = _DATA_NAME.fullmatch(file.name)
        if digits is not None and digits["model"] == target.name and file.name not in new:
            try:
                files.remove_file(file, _is_data, "removing the data of an earlier export")
            except StoreError as err:
                log.info("%s", err)


def _is_data(path: Path) -> bool:
    """Return whether a file is external data of an export: the digest in its name is its content's."""
    digits = _DATA_NAME.fullmatch(path.name)
    return digits is not None and file_sha256(path).startswith(digits["digest"])
