"""The choice by speed: a small job stays native, and of a long run the faster way is taken."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from ..control.announcing import announce
from ..conversion.cache import ExportCache, key_of
from ..conversion.reference import Reference
from ..errors import OutputError, warn_at_caller
from ..runtime.opened import OpenedModel
from ..runtime.request import RunRequest
from ..runtime.session import runtime
from .faster_runner import LEAST_RUN_S, RunnerSpeed, find_clear_lead, keep_speed, measure_speed, read_speed
from .open_native import is_on_device, open_native, plan_native
from .small_jobs import SmallJob, find_small_job

log = logging.getLogger("fo_onnx.engine")


def is_chosen_by_speed(request: RunRequest, reference: Reference) -> bool:
    """Return whether speed may choose: nothing was asked for that only one way has, and it is known how many rows there are."""
    run = request.run
    is_free = run.runner == "auto" and run.precision in ("float32", "auto") and is_on_device(request, reference)
    return is_free and request.rows is not None and request.recorded_plan is None


def stay_native(request: RunRequest, reference: Reference, fingerprint: str) -> OpenedModel | None:
    """Open the native runner if that was the faster one before, or if an export would cost too much; else return ``None``."""
    plugin, rows = request.plugin, request.rows
    assert plugin is not None
    assert rows is not None
    export_key = key_of(plugin, fingerprint, request.example, request.model_options, request.output)
    choice: RunnerSpeed | SmallJob | None
    if ExportCache.of_user().holds(export_key):
        known = read_speed(_speed_key(request, reference, fingerprint))
        choice = known if known is not None and known.is_native_faster else None
    else:
        choice = find_small_job(reference, request.earlier_rows + rows, plugin.name)
    if choice is None:
        return None
    try:
        opened = open_native(request, reference, fingerprint, choice.reason)
    except OutputError:
        # The graph may say what the output means.
        return None
    log.info("%s runs natively: %s", opened.spec.name, opened.reason)
    if opened.reason != choice.reason:
        warn_at_caller(f"{opened.spec.name} runs natively: {opened.reason}")
    if isinstance(choice, SmallJob):
        return replace(opened, speed=choice.record, most_rows=choice.most_rows)
    return replace(opened, speed=choice.record, plan=plan_native(reference, choice.native_batch_size))


def take_faster(request: RunRequest, reference: Reference, exported: OpenedModel) -> OpenedModel:
    """Return the exported model, or the original in its place if that is the faster one."""
    assert request.plugin is not None
    assert request.rows is not None
    assert exported.original is not None
    assert exported.open_native is not None
    key = _speed_key(request, reference, exported.sha256)
    speed, native_s = read_speed(key), request.rows * reference.row_s
    if speed is None and native_s >= LEAST_RUN_S:
        # A single call may have compiled something.
        is_warm = len(reference.calls) > 1
        speed = find_clear_lead(exported.plan, reference.plan, reference.row_s) if is_warm else None
        if speed is None:
            announce(f"timing {exported.spec.name} in {request.plugin.name} and in ONNX", request.run.progress)
            speed = measure_speed(exported, exported.original, reference.inputs, reference.plan, native_s)
        if speed is not None:
            keep_speed(key, speed)
    if speed is None:
        return exported
    if not speed.is_native_faster:
        return replace(exported, speed=speed.record)
    log.info("%s runs natively: %s", exported.spec.name, speed.reason)
    exported.close()
    return OpenedModel(
        (exported.open_native(),), exported.spec, plan_native(reference, speed.native_batch_size), exported.sha256,
        reason=speed.reason, parity=exported.parity, export_s=exported.export_s, export_origin=exported.export_origin,
        versions=exported.versions, speed=speed.record,
    )  # fmt: skip


def _speed_key(request: RunRequest, reference: Reference, fingerprint: str) -> dict[str, Any]:
    """Return what the speed of both ways depends on."""
    plugin, run = request.plugin, request.run
    assert plugin is not None
    return {
        "model": fingerprint,
        "type": type(request.model).__qualname__,  # compiled by its framework, or not
        "versions": plugin.versions() | {"onnxruntime": runtime().__version__},
        "inputs": [[name, str(a.dtype), list(a.shape[1:])] for name, a in request.example.items()],
        "run": [
            run.device,
            run.batch_size,
            run.tuning,
            run.precision,
            run.tv_budget,
            reference.model.device,
            reference.plan.batch_size,
        ],
    }
