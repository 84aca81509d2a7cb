"""The exported file beside the model it came from: compared, and put into its place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import ModelError
from ..model import OnnxModel, describe, external_files, load_proto, rename_external_data
from ..options import ModelOptions, OutputOptions, RunOptions
from ..parity import ParityReport, measure
from ..protocols import Inputs, RawModel
from ..store import files
from .convert import native_example
from .select import select
from .selection import Job


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
        ModelError: It is no ``.onnx`` path, its folder is missing, or it exists and may not be replaced.
    """
    target = Path(f"{name}.onnx" if path is None else path)
    if target.suffix != ".onnx":
        raise ModelError(f"exporting to {target}: a path that ends in .onnx was expected.")
    if not target.parent.is_dir():
        raise ModelError(f"exporting to {target}: the folder {target.parent} does not exist. Make it first.")
    if target.exists() and not overwrite:
        raise ModelError(
            f"exporting to {target}: it exists already. Say overwrite=True (--overwrite), or choose another name."
        )
    return target


def publish(made: OnnxModel, target: Path, report: ParityReport | None) -> OnnxModel:
    """Puts an export from a temporary folder into its place, whole, with the comparison in its metadata."""
    provenance = dict(made.provenance, parity=None if report is None else report.to_dict())
    proto = load_proto(made.path)
    describe(proto, replace(made, provenance=provenance))
    found = external_files(proto, made.path.parent)
    # Called like the model, since another one's data may lie in the same folder.
    names = {f.name: f"{target.name}.data{'' if i == 0 else f'.{i}'}" for i, f in enumerate(found)}
    rename_external_data(proto, names)
    for file in found:
        files.copy(file, target.parent / names[file.name])
    files.write_bytes(target, proto.SerializeToString())
    return OnnxModel.open(target)
