"""OpenVINO in float32 where its build of ONNX Runtime is installed: taken for a long run if it is faster and gives the same rows."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from ..contracts.batch import cut_inputs, pad_rows
from ..contracts.batch_plan import BatchPlan
from ..distributions.probabilities import total_variation
from ..errors import DeviceError, ModelError, OutputError, RunError
from ..models.onnx_model import LoadedOnnx
from .compare_speed import SpeedComparison, Workload, compare_speed
from .devices import KINDS, cpu_cores, placements
from .measurements import Measurements
from .open_runners import open_onnx_runners
from .opened import OpenedModel
from .request import RunRequest
from .session import available_providers, runtime

log = logging.getLogger("fo_onnx.engine")
KIND = "provider"
LEAST_RUN_S = 60.0
"""A shorter run is not worth the trial, which takes 3 to 10 s: OpenVINO compiles the graph for each session."""
SAME = 0.1
"""Rows may differ from those of ONNX Runtime's own kernels by this share of the tolerance, the rest of which is the export's."""
_REFUSALS = (DeviceError, ModelError, OutputError, RunError)


def take_faster_provider(opened: OpenedModel, loaded: LoadedOnnx, request: RunRequest) -> OpenedModel:
    """Return the model on OpenVINO if that is faster, as it was measured before on this machine or is now; else as it is.

    Only where the plan was measured too: a run that is pinned by its batch size or plan stays where it is. A choice that was measured
    before holds for shorter runs, too.

    Args:
        opened: The model on the CPU, as its run is cut best.
        loaded: Its file.
        request: What it was opened for.
    """
    place = opened.placement
    if (
        request.run.device != "auto" or not opened.plan.measured or place is None or place.provider != KINDS["cpu"]
        or KINDS["openvino"] not in available_providers()
    ):  # fmt: skip
        return opened
    store, key = Measurements.of_user(), _key(opened, loaded, request)
    # As it is cut, and with one session over all threads.
    plans = {plan.sessions: plan for plan in (replace(opened.plan, sessions=1, threads=cpu_cores()), opened.plan)}
    known = store.read(KIND, key)
    if known is not None:
        return _open_known(opened, loaded, request, plans, known)
    if request.rows is None or request.rows < LEAST_RUN_S * max(rate.rows_per_s for rate in opened.plan.measured):
        return opened
    log.info("%s: trying OpenVINO", opened.spec.name)
    best, speedup = opened, 1.0
    for plan in plans.values():
        other = _open_same(opened, loaded, replace(request, recorded_plan=plan))
        if other is None:
            break
        speed = _compare(opened, other, request)
        slower = other
        if speed is not None and speed.is_faster() and speed.ratio > speedup:
            best, slower, speedup = other, best, speed.ratio
        if slower is not opened:
            slower.close()
    is_other = best is not opened
    store.keep(KIND, key, {"sessions": best.plan.sessions if is_other else 0, "speedup": speedup})
    return _replace_runners(opened, best, speedup) if is_other else opened


def _open_known(
    opened: OpenedModel, loaded: LoadedOnnx, request: RunRequest, plans: dict[int, BatchPlan], known: dict[str, Any]
) -> OpenedModel:
    """Return what was chosen before, if it gives the same rows still."""
    plan = plans.get(known.get("sessions", 0))
    other = None if plan is None else _open_same(opened, loaded, replace(request, recorded_plan=plan))
    return opened if other is None else _replace_runners(opened, other, float(known.get("speedup", 1.0)))


def _replace_runners(opened: OpenedModel, other: OpenedModel, speedup: float) -> OpenedModel:
    for runner in opened.runners:
        runner.close()
    log.info("%s: OpenVINO is %.2f times as fast", opened.spec.name, speedup)
    return replace(other, parity=opened.parity, path=opened.path, provider_speedup=speedup)


def _open_same(opened: OpenedModel, loaded: LoadedOnnx, request: RunRequest) -> OpenedModel | None:
    """Return the model on OpenVINO; ``None`` if it does not run there, or its first rows are not the same."""
    try:
        other = open_onnx_runners(loaded, request, placements("openvino", "float32", available_providers()))
    except _REFUSALS as err:
        log.info("%s does not run on OpenVINO: %s", opened.spec.name, err)
        return None
    try:
        batch = next(cut_inputs(request.example, opened.plan.batch_size))
        one, two = (each.runners[0].run(batch).probs.astype(np.float64) for each in (opened, other))
        distance = float(np.nan_to_num(total_variation(one, two), nan=0.0).max(initial=0.0))
        same_nan = np.array_equal(np.isnan(one), np.isnan(two))
        if same_nan and distance <= SAME * request.model_options.tolerance:
            return other
        problem = f"its rows differ by a total variation of {distance:.1e}" if same_nan else "it has no other rows"
    except _REFUSALS as err:
        problem = str(err)
    log.info("%s is not run on OpenVINO: %s", opened.spec.name, problem)
    other.close()
    return None


def _compare(opened: OpenedModel, other: OpenedModel, request: RunRequest) -> SpeedComparison | None:
    size = opened.plan.batch_size
    batches = [
        {name: pad_rows(array, size) for name, array in batch.items()} for batch in cut_inputs(request.example, size)
    ]
    try:
        return compare_speed(Workload(opened.runners, batches), Workload(other.runners, batches))
    except _REFUSALS as err:
        log.info("%s is not run on OpenVINO: %s", opened.spec.name, err)
        return None


def _key(opened: OpenedModel, loaded: LoadedOnnx, request: RunRequest) -> dict[str, Any]:
    """Return what the choice depends on, besides the machine."""
    plan = opened.plan
    return {
        "model": loaded.model.sha256, "onnxruntime": runtime().__version__, "batch_size": plan.batch_size, "sessions": plan.sessions,
        "threads": plan.threads, "rows": [[name, str(a.dtype), a.shape[1:]] for name, a in request.example.items()],
    }  # fmt: skip
