"""OpenVINO in float32 where its build of ONNX Runtime is installed: taken for a long run if it is faster and gives the same rows."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from ..contracts.batch import cut_inputs
from ..distributions.probabilities import total_variation
from ..errors import DeviceError, ModelError, OutputError, RunError
from ..models.onnx_model import LoadedOnnx
from .compare_speed import SpeedComparison, compare_speed, workload_of
from .devices import KINDS, placements
from .measured_plan import open_measured
from .measurements import Measurements
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
    # OpenVINO has a plan of its own.
    request = replace(request, recorded_plan=None)
    store, key = Measurements.of_user(), _key(loaded, request)
    known = store.read(KIND, key)
    if known is not None:
        other = _open_same(opened, loaded, request) if known.get("is_faster") is True else None
        return opened if other is None else _replace_runners(opened, other, float(known.get("speedup", 1.0)))
    if request.rows is None or request.rows < LEAST_RUN_S * max(rate.rows_per_s for rate in opened.plan.measured):
        return opened
    log.info("%s: trying OpenVINO", opened.spec.name)
    other = _open_same(opened, loaded, request)
    speed = None if other is None else _compare(opened, other, request)
    is_faster = speed is not None and speed.is_faster()
    store.keep(KIND, key, {"is_faster": is_faster, "speedup": None if speed is None else speed.ratio})
    if other is None:
        return opened
    if speed is None or not is_faster:
        other.close()
        return opened
    return _replace_runners(opened, other, speed.ratio)


def _replace_runners(opened: OpenedModel, other: OpenedModel, speedup: float) -> OpenedModel:
    for runner in opened.runners:
        runner.close()
    log.info("%s: OpenVINO is %.2f times as fast", opened.spec.name, speedup)
    return replace(other, parity=opened.parity, path=opened.path, provider_speedup=speedup)


def _open_same(opened: OpenedModel, loaded: LoadedOnnx, request: RunRequest) -> OpenedModel | None:
    """Return the model on OpenVINO, cut as is best there; ``None`` if it does not run there, or its first rows are not the same."""
    try:
        other = open_measured(loaded, request, placements("openvino", "float32", available_providers())[0])
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
    try:
        return compare_speed(workload_of(opened, request.example), workload_of(other, request.example))
    except _REFUSALS as err:
        log.info("%s is not run on OpenVINO: %s", opened.spec.name, err)
        return None


def _key(loaded: LoadedOnnx, request: RunRequest) -> dict[str, Any]:
    """Return what the choice depends on, besides the machine."""
    rows = [[name, str(array.dtype), array.shape[1:]] for name, array in request.example.items()]
    return {"model": loaded.model.sha256, "onnxruntime": runtime().__version__, "rows": rows}
