"""Which runner a run gets, and why: the exported model if that works and is the same, else the framework's own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..contracts.batch import Inputs, count_rows, cut_inputs, first_row
from ..contracts.parity_report import ParityReport
from ..contracts.runner import Runner
from ..contracts.spec import LOGIT_KINDS, ModelSpec
from ..control.run_control import current
from ..conversion.batch_effects import measure_batch_effects
from ..conversion.output_kind import with_output_kind
from ..conversion.parity import head_of
from ..conversion.prepare import VerifiedExport, prepare_onnx
from ..conversion.reference import Reference, open_reference, time_calls
from ..errors import (
    DataError,
    DeviceError,
    ExportError,
    FoOnnxError,
    ModelError,
    OutputError,
    ParityError,
    PluginError,
    RunError,
    warn_at_caller,
)
from ..models import plugins
from ..models.callables import CallableExporter
from ..runtime.devices import cpu_cores, parse_device
from ..runtime.native_runner import NativeRunner
from ..runtime.opened import OpenedModel
from ..runtime.request import RunRequest, with_class_count
from ..runtime.turns import open_native_model
from ..store import files
from .choose_precision import lower_precision, stay_in_float32
from .open_file import choose_for_file

log = logging.getLogger("fo_onnx.engine")


def choose_runner(request: RunRequest) -> OpenedModel:
    """Choose and open the runners of a run.

    Raises:
        ExportError, ParityError, DeviceError, ModelError, OutputError: What keeps the model from being run as asked.
    """
    is_pinned = request.run.may_lower_precision and request.run.precision != "auto"
    if is_pinned and request.run.runner == "auto":
        # Only ONNX has it, so that nothing else may run in its place.
        request = replace(request, run=replace(request.run, runner="onnx"))
    opened = choose_for_file(request) if request.plugin is None else _choose_for_framework(request)
    if request.run.may_lower_precision and opened.precision is None:
        is_native = opened.runners[0].kind == "native"
        why = "the model runs natively" if is_native else "the model refuses its first rows"
        return stay_in_float32(opened, request, opened.reason or why)
    return opened


def _choose_for_framework(request: RunRequest) -> OpenedModel:
    begun = time.monotonic()
    plugin = request.plugin
    assert plugin is not None
    try:
        reference = open_reference(request)
    except (DataError, OutputError) as err:
        if not _is_function(request.model) or isinstance(plugin, CallableExporter):
            raise
        # A function that holds a framework's model may take and give numpy all the same.
        return _retry_as_numpy_function(request, err)
    request = replace(request, example=reference.inputs)
    with current().calling("the digest of its weights"):
        fingerprint = plugin.fingerprint(request.model, request.example)

    # Native, because it was asked for, or because it is better.
    reason = None if request.run.runner == "native" else _find_reason_for_native(request)
    if request.run.runner == "native" or reason is not None:
        opened = _open_native(request, reference, fingerprint, reason)
        if opened.reason != reason:
            warn_at_caller(f"{opened.spec.name} runs natively: {opened.reason}")
        return opened

    # ONNX, unless the export fails or is not the same.
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(files.temporary_folder())
        export = prepare_onnx(request, reference, Path(folder), fingerprint, ask=True)
        dependence = export.parity.row_dependence
        is_wanted = request.run.runner == "onnx" and export.parity.agrees
        if export.parity.passed or is_wanted:
            if dependence is not None:
                warn_at_caller(f"{export.opened.spec.name} runs in ONNX all the same: {dependence}")
            else:
                loaded, opened = lower_precision(export.loaded, export.opened, request, Path(folder))
                export = replace(export, loaded=loaded, opened=opened)
            return _open_exported(request, reference, fingerprint, export, stack, time.monotonic() - begun)
        export.opened.close()
        error: FoOnnxError = ParityError(f"{plugin.name} → ONNX: {export.parity.verdict()}.")
        parity: ParityReport | None = export.parity
    except (ExportError, ModelError, RunError, DeviceError, PluginError) as err:
        error, parity = err, None
    except BaseException:
        stack.close()
        raise
    stack.close()
    if request.run.runner == "onnx":
        raise error
    return _fall_back_to_native(request, reference, fingerprint, error, parity)


def _open_exported(
    request: RunRequest,
    reference: Reference,
    fingerprint: str,
    export: VerifiedExport,
    resources: contextlib.ExitStack,
    export_s: float,
) -> OpenedModel:
    assert request.plugin is not None
    spec = export.opened.spec
    return replace(
        export.opened, sha256=fingerprint, original_time=time_calls(reference), reason=export.parity.row_dependence, parity=export.parity,
        export_s=export_s, versions=request.plugin.versions(),
        export_origin=export.origin, resources=resources,
        open_native=functools.cache(lambda: _open_native_runner(request, reference, spec)),
    )  # fmt: skip


def _find_reason_for_native(request: RunRequest) -> str | None:
    """Return why no export is tried: the device, or the model itself."""
    if request.run.runner == "onnx":
        return None
    names = (request.run.device,) if isinstance(request.run.device, str) else request.run.device
    if any(parse_device(n).kind == "tpu" for n in names):
        return "ONNX Runtime does not run on TPUs"
    assert request.plugin is not None
    return plugins.prefer_native(request.plugin, request.model, request.example)


def _is_function(model: Any) -> bool:
    """Return whether `model` is a plain function; a model's own object is never taken for one."""
    return inspect.isroutine(model) or isinstance(model, functools.partial)


def _retry_as_numpy_function(request: RunRequest, refusal: FoOnnxError) -> OpenedModel:
    """Take the function for one over numpy arrays; if it is none either, what its framework said of it is the error."""
    try:
        opened = _choose_for_framework(replace(request, plugin=CallableExporter()))
    except (DataError, OutputError):
        raise refusal from None
    if opened.reason is None:
        return opened
    return replace(opened, reason=f"{opened.reason}; taken as a model of the framework that it holds, {refusal}")


def _fall_back_to_native(
    request: RunRequest, reference: Reference, fingerprint: str, error: FoOnnxError, parity: ParityReport | None
) -> OpenedModel:
    """Open the native runner in place of ONNX, with the reason and one warning."""
    try:
        opened = _open_native(request, reference, fingerprint, str(error), parity)
    except OutputError as ambiguous:
        # Nothing but the graph might have said what the output means, so why there is none belongs here too.
        raise OutputError(f"{ambiguous} (Its export failed: {error})") from error
    except DeviceError:
        # Neither has the device; what ONNX Runtime lacks is the answer to what was asked for.
        raise error from None
    warn_at_caller(f"{opened.spec.name} runs natively, not in ONNX: {opened.reason}")
    return opened


def _open_native(
    request: RunRequest, reference: Reference, fingerprint: str, reason: str | None, parity: ParityReport | None = None
) -> OpenedModel:
    """Open the native runner. A model whose rows depend on more than their input is detected, unless a comparison did it."""
    assert request.plugin is not None
    spec = reference.model.spec
    spec = replace(spec, name=request.model_options.model_name or spec.name)
    if request.output.output_transform is None:
        spec = with_output_kind(spec, reference.raw, request.output)
        if request.output.keep_logits and spec.output_kind not in LOGIT_KINDS:
            raise OutputError(
                f"keep_logits=True was asked for, but {spec.name} gives {spec.output_kind}, which has no logits."
            )
    if parity is None and (problem := _find_batch_effects(request, reference, spec)) is not None:
        reason = problem if reason is None else f"{reason.rstrip('.')}; {problem}"
    runner = _open_native_runner(request, reference, spec, _precomputed_batches(request, reference))
    return OpenedModel(
        runners=(runner,), spec=with_class_count(spec, runner, request, reference.plan.batch_size),
        plan=replace(reference.plan, sessions=1, threads=cpu_cores(), spinning=False),
        sha256=fingerprint, reason=reason, parity=parity, versions=request.plugin.versions(),
    )  # fmt: skip


def _find_batch_effects(request: RunRequest, reference: Reference, spec: ModelSpec) -> str | None:
    """Return what a row of the original depends on besides its input; ``None`` if on nothing."""
    head = head_of(spec, request.output.output_transform)
    effects = measure_batch_effects(
        lambda batch: head(reference.model.forward(batch), count_rows(batch)),
        request.example,
        reference.plan.batch_size,
    )
    return effects.dependence


def _precomputed_batches(request: RunRequest, reference: Reference) -> list[tuple[Inputs, Any]]:
    """Return the first batches of the run with what the model gives for them, which has been run already."""
    if request.output.output_transform is not None or not reference.is_whole:
        return []
    size, is_all = reference.plan.batch_size, len(reference.raw) == request.rows
    outputs = cut_inputs({"output": reference.raw}, size)
    batches = zip(cut_inputs(request.example, size), (output["output"] for output in outputs), strict=False)
    return [(inputs, output) for inputs, output in batches if is_all or len(output) == size]


def _open_native_runner(
    request: RunRequest, reference: Reference, spec: ModelSpec, precomputed: list[tuple[Inputs, Any]] | None = None
) -> Runner:
    """Return the runner on the device that was asked for; the reference is used if it is there already."""
    name = request.run.device
    device = str(parse_device(name)) if isinstance(name, str) else tuple(str(parse_device(n)) for n in name)
    is_there = device in ("auto", reference.model.device)
    model = reference.model if is_there else open_native_model(request, device)
    return NativeRunner(
        model, spec, keep_logits=request.output.keep_logits, transform=request.output.output_transform,
        precomputed=precomputed if is_there and precomputed else (), known_row=first_row(reference.inputs),
    )  # fmt: skip
