"""Which runner a job gets, and why: the exported model where that works and is the same, else the framework's own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

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
)
from ..model import OnnxModel
from ..options import OutputOptions
from ..parity import measure, mixing
from ..probabilities import apply_head
from ..protocols import Exporter, Inputs, RawModel, Runner
from ..run_control import current
from ..spec import LOGIT_KINDS, ModelSpec
from ..store import files
from .cache import ExportCache, key_of
from .callables import CallableExporter
from .convert import Cached, convert, converted_or_anew, decided, export_raw, native_example
from .fallback import warn_of_fallback
from .nan_rows import NanRowsNative
from .onnx_files import open_sessions, select_file
from .providers import Placement, cpu_cores, parse_device, placements
from .runners import NativeRunner, OnnxRunner, transformed
from .selection import Job, Selection, counted
from .session import available_providers
from .turns import native_in_turn


def select(job: Job) -> Selection:
    """Chooses and opens the runners of a job.

    Raises:
        ExportError, ParityError, DeviceError, ModelError, OutputError: What keeps the model from being run as asked.
    """
    if isinstance(job.model, OnnxModel):
        return select_file(job, job.model)
    assert job.exporter is not None
    return _select_framework(job, job.exporter)


def _select_framework(job: Job, exporter: Exporter) -> Selection:
    begun = time.monotonic()
    reference = native_in_turn(exporter, job.model, job.example, "auto", job.model_options, job.output, job.turn)
    try:
        raw = native_example(reference, job.example, job.output, job.tuning(0, None).batch_size)
    except (DataError, OutputError) as err:
        if not _is_function(job.model) or isinstance(exporter, CallableExporter):
            raise
        # A function that holds a framework's model may take and give numpy all the same.
        return _select_plain(job, err)
    with current().calling("the digest of its weights"):
        fingerprint = exporter.fingerprint(job.model)
    if job.run.engine == "native":
        return _native(job, exporter, reference, raw, fingerprint, None)
    if job.run.engine == "auto":
        reason = _native_only(job, exporter)
        if reason is not None:
            return _by_choice(job, exporter, reference, raw, fingerprint, reason)
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(files.temporary_folder())
        path = Path(folder) / "model.onnx"
        candidates = placements(job.run.device, job.run.precision, available_providers())
        key = key_of(exporter, fingerprint, job.example, job.model_options, job.output)
        cached = Cached(ExportCache.of_user(), key, Path(folder))
        found = converted_or_anew(
            cached, lambda cached: _converted(job, exporter, path, raw, candidates, reference, cached)
        )
    except (ExportError, ModelError, RunError, DeviceError, ParityError, PluginError) as err:
        stack.close()
        if job.run.engine == "onnx":
            raise
        return _instead(job, exporter, reference, raw, fingerprint, err)
    except BaseException:
        stack.close()
        raise
    found.export_s = time.monotonic() - begun
    found.sha256, found.path, found._stack = fingerprint, None, stack
    found.versions = exporter.versions()
    spec = found.spec
    found.native = functools.cache(lambda: _native_runner(job, exporter, reference, spec))
    return found


def _by_choice(job: Job, exporter: Exporter, reference: RawModel, raw: Any, fingerprint: str, reason: str) -> Selection:
    """The native runner without an export being tried; a model whose rows have no answer of their own is told all the same."""
    found = _native(job, exporter, reference, raw, fingerprint, reason)
    if job.output.output_transform is None and not isinstance(exporter, CallableExporter):
        spec = found.spec
        assert spec.output_kind is not None
        together, _ = apply_head(raw, spec.output_kind, spec.temperature, dtype=np.float64)
        mixed = mixing(reference, spec, job.example, together, job.model_options.tolerance)
        if mixed is not None:
            found.reason = f"{reason}; {mixed}"
            warn_of_fallback(f"{found.spec.name} runs natively: {mixed}")
    return found


def _native_only(job: Job, exporter: Exporter) -> str | None:
    """Why no export is tried: the device, or the model itself."""
    names = (job.run.device,) if isinstance(job.run.device, str) else job.run.device
    if any(parse_device(n).kind == "tpu" for n in names):
        return "ONNX Runtime does not run on TPUs"
    return exporter.native_only(job.model, job.example)


def _is_function(model: Any) -> bool:
    """Whether it is a plain function; a model's own object is never taken for one."""
    return inspect.isroutine(model) or isinstance(model, functools.partial)


def _select_plain(job: Job, refused: FoOnnxError) -> Selection:
    """The function as one over numpy; where it is none either, what its framework said of it is the error."""
    try:
        found = _select_framework(job, CallableExporter())
    except (DataError, OutputError):
        raise refused from None
    if found.reason is not None:
        found.reason = f"{found.reason}; taken as a model of the framework that it holds, {refused}"
    return found


def _converted(
    job: Job, exporter: Exporter, path: Path, raw: Any, candidates: list[Placement], reference: RawModel, cached: Cached
) -> Selection:
    """Exports the model, opens its sessions and compares it; a difference is an error."""
    transform = job.output.output_transform
    if transform is not None:
        model = export_raw(exporter, job.model, job.example, path, job.model_options, job.output, cached)
    else:
        model = convert(
            exporter, job.model, job.example, path, raw_example=raw, model_options=job.model_options, output=job.output,
            cached=cached,
        )  # fmt: skip
    found = open_sessions(job, model, candidates)
    found.export = cached.how
    _answer_nan_natively(found, reference, job.output)
    found.parity = measure(
        reference,
        found.runners[0],
        job.example,
        batch_size=found.tuning.batch_size,
        tolerance=job.model_options.tolerance,
        transform=None if transform is None else lambda out: transformed(transform, out, len(out)),
        known=raw if found.tuning.batch_size == job.tuning(0, None).batch_size else None,
    )
    if not found.parity.passed:
        found.close()
        error = ParityError(f"{job.exporter.name if job.exporter else 'model'} → ONNX: {found.parity.verdict()}.")
        error.report = found.parity  # type: ignore[attr-defined]
        raise error
    return found


def _answer_nan_natively(found: Selection, reference: RawModel, output: OutputOptions) -> None:
    """Lets the original answer rows with NaN in their input."""
    original = NativeRunner(reference, found.spec, keep_logits=output.keep_logits, transform=output.output_transform)
    found.runners = [NanRowsNative(r, original) if isinstance(r, OnnxRunner) else r for r in found.runners]


def _instead(
    job: Job, exporter: Exporter, reference: RawModel, raw: Any, fingerprint: str, err: FoOnnxError
) -> Selection:
    """The native runner in the place of ONNX, with the reason and one warning."""
    try:
        found = _native(job, exporter, reference, raw, fingerprint, str(err))
        found.parity = getattr(err, "report", None)
    except OutputError as ambiguous:
        # Nothing but the graph might have told what the output means, so why there is none belongs here too.
        raise OutputError(f"{ambiguous} (Its export failed: {err})") from err
    except DeviceError:
        # Neither has the device; what ONNX Runtime lacks is the answer to what was asked for.
        raise err from None
    warn_of_fallback(f"{found.spec.name} runs natively, not in ONNX: {err}")
    return found


def _native(
    job: Job, exporter: Exporter, reference: RawModel, raw: Any, fingerprint: str, reason: str | None
) -> Selection:
    spec = reference.spec
    spec = replace(spec, name=job.model_options.model_name or spec.name)
    if job.output.output_transform is None:
        spec = decided(spec, raw, job.output)
        if job.output.keep_logits and spec.output_kind not in LOGIT_KINDS:
            raise OutputError(
                f"keep_logits=True was asked for, but {spec.name} gives {spec.output_kind}, which has no logits."
            )
    runner = _native_runner(job, exporter, reference, spec, _known(job, raw))
    tuning = replace(job.tuning(0, None), sessions=1, threads=cpu_cores())
    found = Selection([runner], spec, tuning, fingerprint, reason=reason, versions=exporter.versions())
    return counted(found, job)


def _known(job: Job, raw: Any) -> list[tuple[Inputs, Any]]:
    """The first batches of the run with what the model gives for them, which has been run already."""
    if job.output.output_transform is not None:
        return []
    size, rows = job.tuning(0, None).batch_size, len(raw)
    whole = rows == job.rows
    starts = [s for s in range(0, rows, size) if whole or s + size <= rows]
    return [({k: v[s : s + size] for k, v in job.example.items()}, raw[s : s + size]) for s in starts]


def _native_runner(
    job: Job, exporter: Exporter, reference: RawModel, spec: ModelSpec, known: list[tuple[Inputs, Any]] | None = None
) -> Runner:
    asked = job.run.device
    device = str(parse_device(asked)) if isinstance(asked, str) else tuple(str(parse_device(n)) for n in asked)
    raw = reference
    if device not in ("auto", reference.device):
        raw = native_in_turn(exporter, job.model, job.example, device, job.model_options, job.output, job.turn)
    return NativeRunner(
        raw, spec, keep_logits=job.output.keep_logits, transform=job.output.output_transform,
        known=known if raw is reference and known else (),
    )  # fmt: skip
