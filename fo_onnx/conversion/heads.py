"""The probability head of a parsed file: added, removed, or decided upon with a calibration batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..contracts.spec import LOGIT_KINDS, ModelSpec
from ..distributions.probabilities import check_raw_shape
from ..models import graph_head as head
from ..models.class_names import choose_class_names
from ..models.onnx_model import LoadedOnnx, describe, raw_output_info, without_parity
from ..runtime.devices import Placement, cpu_cores
from ..runtime.onnx_runner import OnnxRunner
from ..runtime.request import RunRequest
from ..runtime.session import Session
from .output_kind import count_classes, decide_output_kind


def add_head(loaded: LoadedOnnx, spec: ModelSpec) -> LoadedOnnx:
    """Give the graph the head that `spec` asks for, in the place of one that it may have, and write `spec` into it."""
    assert spec.output_kind is not None
    assert spec.classes is not None
    proto = remove_head(loaded).proto
    probs, logits = head.fuse(proto, spec.output.name, spec.output_kind, spec.temperature, spec.classes)
    model = replace(loaded.model, spec=spec, probs_output=probs, logits_output=logits)
    describe(proto, model)
    return replace(loaded, model=model, is_edited=True)


def remove_head(loaded: LoadedOnnx) -> LoadedOnnx:
    """Make the raw output the graph's only output."""
    head.remove(loaded.proto, raw_output_info(loaded.proto, loaded.model.spec))
    return replace(loaded, model=replace(loaded.model, probs_output=None, logits_output=None), is_edited=True)


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
    return add_head(loaded, _decide_spec(remove_head(loaded), request, placement))


def _decide_spec(loaded: LoadedOnnx, request: RunRequest, placement: Placement) -> ModelSpec:
    """Return the spec of a file without head, with the decision on its output."""
    spec, output = loaded.model.spec, request.output
    if spec.output_kind is not None and output.output == "auto":
        output = replace(output, output=spec.output_kind)
    graph_kind, unbounded, raw = None, False, None
    if output.output == "auto":
        graph_kind = head.output_kind_of_graph(loaded.proto, spec.output.name)
        unbounded = head.is_unbounded(loaded.proto, spec.output.name)
    # If the graph says it, no calibration batch is needed: rows that contradict it come out as NaN and are reported.
    if graph_kind is None:
        raw = _run_raw(loaded, request, placement)
    kind = decide_output_kind(raw, output, spec.name, graph_kind=graph_kind, unbounded=unbounded)
    classes = count_classes(kind, spec.output.shape if raw is None else raw.shape)
    if classes is None:
        classes = count_classes(kind, _run_raw(loaded, request, placement).shape)
    own_temperature = output.temperature == 1 and kind in LOGIT_KINDS
    temperature = spec.temperature if own_temperature else float(output.temperature)
    spec = replace(spec, output_kind=kind, classes=classes, temperature=temperature)
    return replace(spec, class_names=choose_class_names(output.class_names, spec))


def _without_parity(loaded: LoadedOnnx, reason: str) -> LoadedOnnx:
    """Return the file without its recorded comparison, which was of something else than what is run."""
    provenance = without_parity(loaded.model.provenance, reason)
    return replace(loaded, model=replace(loaded.model, provenance=provenance))


def _run_raw(loaded: LoadedOnnx, request: RunRequest, placement: Placement) -> Any:
    """Return the raw output of a file without head for the first rows."""
    model = loaded.model
    session = Session(loaded.content, model.path.parent, placement, cpu_cores(), model.spec.name)
    runner = OnnxRunner(session, model.spec, placement.device, probs=model.spec.output.name, logits=None)
    raw = runner.run_raw(request.example)
    runner.close()
    check_raw_shape(raw.shape, None, len(next(iter(request.example.values()))), model.spec.name)
    return raw
