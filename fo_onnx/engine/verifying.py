"""The exported file beside the model it came from: compared, and put into its place."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ..errors import ModelError, StoreError
from ..model import OnnxModel, describe, is_export
from ..model_file import external_locations, file_sha256, load_proto, rename_external_data
from ..options import ModelOptions, OutputOptions, RunOptions
from ..parity import ParityReport, measure
from ..protocols import Inputs, RawModel
from ..store import files
from .convert import native_example
from .select import select
from .selection import Job

log = logging.getLogger("fo_onnx.engine")
_DOING = "exporting"
_DIGITS, _DATA = 16, ".data"
_DATA_NAME = re.compile(rf"(?P<model>.+\.onnx)\.(?P<digest>[0-9a-f]{{{_DIGITS}}}){re.escape(_DATA)}", re.DOTALL)


def compare(model: OnnxModel, raw: RawModel, inputs: Inputs, *, tolerance: float, device: str) -> ParityReport:
    """Compares a file with its original on some rows, at the batch size that a run over them would have."""
    rows = len(next(iter(inputs.values())))
    # Whether the model takes such rows at all is told on few of them, with what to do about it.
    native_example(raw, {k: v[:2] for k, v in inputs.items()}, OutputOptions())
    job = Job(model, None, inputs, rows, ModelOptions(tolerance=tolerance), OutputOptions(), RunOptions(device=device))
    selection = select(job)
    try:
        return measure(raw, selection.runners[0], inputs, batch_size=selection.tuning.batch_size, tolerance=tolerance)
    finally:
        selection.close()


def files_of(path: str | os.PathLike[str] | None, name: str, *, overwrite: bool) -> Path:
    """Where an export goes, checked before anything is converted.

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
    if there and not overwrite:
        raise ModelError(
            f"exporting to {target}: it exists already. Say overwrite=True (--overwrite), or choose another name."
        )
    files.require_replaceable(target, is_export, _DOING)
    return target


def publish(made: OnnxModel, target: Path, report: ParityReport | None) -> OnnxModel:
    """Puts an export from a temporary folder into its place, whole, with the comparison in its metadata.

    The file and its external data appear as a pair: data have a digest of their content in their name, and are there
    before the file that names them is; those of an earlier export are removed after it. A kill leaves the old pair or the
    new one whole.

    Raises:
        StoreExistsError: What is at `target`, or where its data would lie, is not of fo-onnx.
        StoreWriteError: The operating system refuses.
    """
    provenance = dict(made.provenance, parity=None if report is None else report.to_dict())
    proto = load_proto(made.path)
    sources = {location: made.path.parent / location for location in external_locations(proto)}
    digests = {location: file_sha256(file) for location, file in sources.items()}
    names = {location: f"{target.name}.{digest[:_DIGITS]}{_DATA}" for location, digest in digests.items()}
    rename_external_data(proto, names)
    describe(proto, replace(made, provenance=provenance), list(dict.fromkeys(digests.values())))
    with files.work_folder(target, _DOING) as folder:
        assembled, data = (folder / name for name in files.WORK_FILES[:2])
        for location, file in sources.items():
            beside = target.parent / names[location]
            # An earlier export of the same weights has left it, or stands there yet.
            files.require_replaceable(beside, _is_data, _DOING)
            if not beside.exists():
                files.copy(file, beside, _DOING, temporary=data)
        files.write_bytes(target, proto.SerializeToString(), _DOING, temporary=assembled, replaces=is_export)
    _remove_old_data(target, set(names.values()))
    return OnnxModel.open(target)


def _remove_old_data(target: Path, new: Collection[str]) -> None:
    """Removes the data of earlier exports to `target`: files called so whose content is what their name says."""
    for file in target.parent.iterdir():
        digits = _DATA_NAME.fullmatch(file.name)
        if digits is not None and digits["model"] == target.name and file.name not in new:
            try:
                files.remove_file(file, _is_data, "removing the data of an earlier export")
            except StoreError as err:
                log.info("%s", err)


def _is_data(path: Path) -> bool:
    """Whether a file is external data of an export: the digest in its name is its content's."""
    digits = _DATA_NAME.fullmatch(path.name)
    return digits is not None and file_sha256(path).startswith(digits["digest"])
