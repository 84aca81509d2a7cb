"""Which runner a run gets, and why: the exported model if that works and is the same, else the framework's own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts.batch import Inputs, count_rows, cut_inputs, first_row
from ..contracts.parity_report import ParityReport
from ..contracts.runner import Runner
from ..contracts.spec import LOGIT_KINDS, ModelSpec
from ..control.run_control import current
from ..conversion.batch_effects import measure_batch_effects
from ..conversion.heads import prepare_head
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
    OptionError,
    OutputError,
    ParityError,
    PluginError,
    RunError,
    warn_at_caller,
)
from ..models import plugins
from ..models.callables import CallableExporter
from ..models.onnx_model import LoadedOnnx, OnnxModel, load_onnx
from ..runtime.devices import Placement, cpu_cores, parse_device, placements
from ..runtime.native_runner import NativeRunner
from ..runtime.open_runners import open_onnx_runners
from ..runtime.opened import OpenedModel
from ..runtime.request import RunRequest, with_class_count
from ..runtime.session import available_providers, seed_random_operators
from ..runtime.turns import open_native_model
from ..store import files

log = logging.getLogger("fo_onnx.engine")


def choose_runner(request: RunRequest) -> OpenedModel:
    """Choose and open the runners of a run.

    Raises:
        ExportError, ParityError, DeviceError, ModelError, OutputError: What keeps the model from being run as asked.
    """
    return _choose_for_file(request) if request.plugin is None else _choose_for_framework(request)


# ONNX files ------------------------------------------------------------------------------------------------------


def open_file(request: RunRequest) -> OpenedModel:
    """Open an ONNX file as it is.

    Raises:
        ModelError: The file has changed since it was opened.
        OptionError: The native runner was asked for, which a file has not.
    """
    return _open_prepared(_prepare_file(request), request)


def _choose_for_file(request: RunRequest) -> OpenedModel:
    """Open a file; one whose rows depend on more than their input runs row by row.

    Raises:
        OutputError: Its rows depend on their batch, whose size is built into it.
    """
    loaded = _prepare_file(request)
    opened = _open_prepared(loaded, request)
    is_compared = opened.parity is not None and opened.parity.passed
    if is_compared or request.recorded_plan is not None:
        return opened
    run = opened.runners[0].run
    try:
        effects = measure_batch_effects(
            lambda batch: run(batch).probs.astype(np.float64), request.example, opened.plan.batch_size
        )
    except FoOnnxError:
        # The run names the row that the file refuses.
        return opened
    if effects.dependence is None:
        return opened
    opened.close()
    name, fixed, plan = opened.spec.name, opened.spec.fixed_batch, opened.plan
    if fixed is not None and fixed > 1 and not effects.samples:
        raise OutputError(
            f"{name}: {effects.dependence}, and its batches of {fixed} rows are built into it. Export it for batches of any size, or of 1."
        )
    # By one session, random operators give the rows of a run in the same order again.
    plan = replace(
        plan,
        batch_size=fixed or 1,
        sessions=1 if effects.samples else plan.sessions,
        reason="its rows depend on their batch",
    )
    if effects.samples:
        seed_random_operators()
    opened = _open_prepared(loaded, replace(request, recorded_plan=plan))
    warn_at_caller(f"{name} runs row by row: {effects.dependence}")
    return replace(opened, reason=f"row by row: {effects.dependence}")


def _prepare_file(request: RunRequest) -> LoadedOnnx:
    """Parse a file and give it the head that is asked for."""
    path = _path_of(request)
    if request.run.runner == "native":
        raise OptionError(f"runner='native' was asked for, but {path} is an ONNX file and has no other runner.")
    loaded = load_unchanged(request)
    with _naming(path):
        loaded = prepare_head(loaded, request, _placements(request)[-1])
    if request.model_options.model_name is not None:
        loaded = replace(loaded, model=loaded.model.with_spec(name=request.model_options.model_name))
    return loaded


def _open_prepared(loaded: LoadedOnnx, request: RunRequest) -> OpenedModel:
    path = _path_of(request)
    with _naming(path):
        opened = open_onnx_runners(loaded, request, _placements(request))
    return replace(opened, parity=_recorded_parity(loaded.model), path=path)


def _path_of(request: RunRequest) -> Path:
    model = request.model.model if isinstance(request.model, LoadedOnnx) else request.model
    path: Path = model.path
    return path


def _placements(request: RunRequest) -> list[Placement]:
    return placements(request.run.device, request.run.precision, available_providers())


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors that do not."""
    try:
        yield
    except ModelError as err:
        if str(path) in str(err):
            raise
        raise ModelError(f"opening the model {path}: {err}") from err


def load_unchanged(request: RunRequest) -> LoadedOnnx:
    """Return the parsed file, which must be what it was when the caller opened it."""
    if isinstance(request.model, LoadedOnnx):
        request.model.require_unchanged()
        return request.model
    model = request.model
    with current().calling("reading its file"):
        # Of a foreign file the output has to be named again; ours has but one.
        loaded = load_onnx(model.path, output_name=model.spec.output.name if model.probs_output is None else None)
    if loaded.model.sha256 != model.sha256:
        raise ModelError(f"{model.path} has changed since it was opened; open it again with OnnxModel.open.")
    return replace(loaded, model=model)


def _recorded_parity(model: OnnxModel) -> ParityReport | None:
    """Return the comparison that a file records; a warning is logged if it says nothing of what is run."""
    parity = model.parity
    if parity is not None and parity.unknown is not None:
        log.warning(
            "%s: its parity is unknown, since %s. fo_onnx.verify compares a file anew; fo_onnx.export makes it again.",
            model.path, parity.unknown,
        )  # fmt: skip
    return parity


# Models of a framework -------------------------------------------------------------------------------------------


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
        plan=replace(reference.plan, sessions=1, threads=cpu_cores()),
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
