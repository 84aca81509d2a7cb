"""Which runner a run gets, and why: the exported model if that works and is the same, else the framework's own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..contracts.parity_report import ParityReport
from ..control.run_control import current
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
from ..runtime.devices import parse_device
from ..runtime.opened import OpenedModel
from ..runtime.request import RunRequest
from ..store import files
from .choose_by_speed import is_chosen_by_speed, stay_native, take_faster
from .choose_precision import lower_precision, stay_in_float32
from .open_file import choose_for_file
from .open_native import open_native, open_native_runner
from .small_jobs import keep_export_s


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
        opened = open_native(request, reference, fingerprint, reason)
        if opened.reason != reason:
            warn_at_caller(f"{opened.spec.name} runs natively: {opened.reason}")
        return opened

    # Native, because the job is small, or because that was faster before.
    by_speed = is_chosen_by_speed(request, reference)
    if by_speed and (native := stay_native(request, reference, fingerprint)) is not None:
        return native

    # ONNX, unless the export fails or is not the same, or turns out to be the slower one.
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(files.temporary_folder())
        export_begun = time.monotonic()
        export = prepare_onnx(request, reference, Path(folder), fingerprint, ask=True)
        if export.origin == "new" and export.parity.passed:
            keep_export_s(plugin.name, time.monotonic() - export_begun)
        dependence = export.parity.row_dependence
        is_wanted = request.run.runner == "onnx" and export.parity.agrees
        if export.parity.passed or is_wanted:
            if dependence is not None:
                warn_at_caller(f"{export.opened.spec.name} runs in ONNX all the same: {dependence}")
            else:
                loaded, opened = lower_precision(export.loaded, export.opened, request, Path(folder))
                export = replace(export, loaded=loaded, opened=opened)
            exported = _open_exported(request, reference, fingerprint, export, stack, time.monotonic() - begun)
            return take_faster(request, reference, exported) if by_speed else exported
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
        open_native=functools.cache(lambda: open_native_runner(request, reference, spec)),
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
        opened = open_native(request, reference, fingerprint, str(error), parity)
    except OutputError as ambiguous:
        # Nothing but the graph might have said what the output means, so why there is none belongs here too.
        raise OutputError(f"{ambiguous} (Its export failed: {error})") from error
    except DeviceError:
        # Neither has the device; what ONNX Runtime lacks is the answer to what was asked for.
        raise error from None
    warn_at_caller(f"{opened.spec.name} runs natively, not in ONNX: {opened.reason}")
    return opened
