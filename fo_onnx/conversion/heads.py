"""The probability head of a parsed file: added, removed, or decided upon with a calibration batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows, cut_inputs
from ..contracts.spec import ModelSpec
from ..distributions.probabilities import check_raw_shape
from ..errors import OutputError, RunError
from ..models import graph_head as head
from ..models.class_names import choose_class_names
from ..models.onnx_model import LoadedOnnx, describe, raw_output_info, without_parity
from ..runtime.devices import KINDS, Placement, cpu_cores
from ..runtime.onnx_runner import OnnxRunner
from ..runtime.refused_rows import run_without_refused
from ..runtime.request import RunRequest
from ..runtime.session import Session
from .output_kind import with_output_kind


def add_head(loaded: LoadedOnnx, spec: ModelSpec) -> LoadedOnnx:
    """Give the graph the head that `spec` asks for, in place of one that it may have, and write `spec` into it."""
    assert spec.output_kind is not None
    assert spec.classes is not None
    loaded = remove_head(loaded)
    proto = loaded.proto
    probs, logits = head.fuse(proto, spec.output.name, spec.output_kind, spec.temperature, spec.classes)
    model = replace(loaded.model, spec=spec, probs_output=probs, logits_output=logits)
    describe(proto, model)
    return replace(loaded, model=model)


def remove_head(loaded: LoadedOnnx) -> LoadedOnnx:
    """Make the raw output the graph's only output."""
    head.remove(loaded.proto, raw_output_info(loaded.proto, loaded.model.spec))
    model = replace(loaded.model, probs_output=None, logits_output=None)
    # What was fused is of the graph as it was.
    return replace(loaded, model=model, is_edited=True, fused=None)


def prepare_head(loaded: LoadedOnnx, request: RunRequest, placement: Placement) -> LoadedOnnx:
    """Give a file the head that is asked for: its own, unless the caller says otherwise, else one that is decided on now.

    Args:
        loaded: The file. One of ours may get another meaning or temperature; a foreign file has no head.
        request: What the caller says, and the calibration batch.
        placement: Where the calibration batch is run if one is needed.

    Returns:
        The file with a head; without one if an ``output_transform`` takes its place.
    """
    spec, output = loaded.model.spec, request.output
    names = choose_class_names(output.class_names, spec)
    if output.output_transform is not None:
        loaded = _without_parity(loaded, "an output_transform takes the place of the head that was compared")
        if spec.output_kind is not None:
            spec = replace(spec, class_names=names)
        return remove_head(replace(loaded, model=replace(loaded.model, spec=spec)))
    is_changed = output.output not in ("auto", spec.output_kind) or output.temperature not in (1, spec.temperature)
    if spec.output_kind is not None and not is_changed:
        loaded = replace(loaded, model=loaded.model.with_spec(class_names=names))
        return loaded if loaded.model.probs_output is not None else add_head(loaded, loaded.model.spec)
    loaded = _without_parity(loaded, "it was compared with another meaning or temperature of its output")
    loaded = remove_head(loaded)
    if spec.output_kind is not None and output.output == "auto":
        output = replace(output, output=spec.output_kind)
    return add_head(loaded, with_output_kind(spec, lambda: _run_raw(loaded, request, placement), output, loaded.proto))


def _without_parity(loaded: LoadedOnnx, reason: str) -> LoadedOnnx:
    """Return the file without its recorded comparison, which was of something else than what is run."""
    provenance = without_parity(loaded.model.provenance, reason)
    return replace(loaded, model=replace(loaded.model, provenance=provenance))


def _run_raw(loaded: LoadedOnnx, request: RunRequest, placement: Placement) -> Any:
    """Return the raw output of a file without head for the first rows, run in batches of the run's size."""
    model = loaded.model
    on_cpu = placement.provider in (KINDS["cpu"], KINDS["openvino"])
    plan = request.plan_batches(on_cpu=on_cpu, model_bytes=loaded.size_bytes, fixed_batch=model.spec.fixed_batch)
    session = Session(loaded.content, model.path.parent, placement, cpu_cores(), model.spec.name)
    runner = OnnxRunner(session, model.spec, placement.device, probs=model.spec.output.name, logits=None)
    parts = [_run_raw_batch(runner, batch) for batch in cut_inputs(request.example, plan.batch_size)]
    runner.close()
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise OutputError(
            f"{model.spec.name} gives outputs of shapes {shapes} for batches of its first rows; one row of as many class scores "
            "for each was expected."
        )
    return np.concatenate(parts)


def _run_raw_batch(runner: OnnxRunner, batch: Inputs) -> NDArray[Any]:
    """Return the raw output of a batch; a row that the file refuses is NaN.

    Raises:
        RunError: It refuses every row.
        OutputError: It gives something else than one row of scores per sample.
    """

    def run(rows: Inputs) -> NDArray[Any]:
        raw = runner.run_raw(rows)
        check_raw_shape(raw.shape, None, count_rows(rows), runner.spec.name)
        return raw

    try:
        return run(batch)
    except RunError as err:
        parts = run_without_refused(run, batch, err).parts
    raw = np.full((count_rows(batch), *parts[0][1].shape[1:]), np.nan, parts[0][1].dtype)
    for indices, part in parts:
        raw[indices] = part
    return raw
