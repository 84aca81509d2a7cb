"""The plan of a run that is long enough for a search: measured on its first rows, or as it was measured before."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..contracts.batch import Batch, Inputs, count_rows, cut_inputs
from ..contracts.batch_plan import BatchPlan, MeasuredRate, plan_of_record
from ..control.run_control import begin, current
from ..errors import FoOnnxError, first_line
from ..models.onnx_model import LoadedOnnx
from ..store.user_cache import warn_once
from .devices import KINDS, Placement, cpu_cores
from .measurements import Measurements
from .open_runners import open_onnx_runners
from .opened import OpenedModel
from .plan_search import LEAST_RUN_S, PlanSearch, search_plan
from .request import RunRequest
from .session import runtime
from .tuning import WEIGHTS_LIMIT_BYTES
from .workers import Failure, run_in_threads

log = logging.getLogger("fo_onnx.engine")
KIND = "batch-plan"
ON_CORES = (KINDS["cpu"], KINDS["openvino"])
"""Providers whose sessions share the machine's cores, so that it matters how a run is cut and spread."""
BATCH_S = 5e-5
"""Added for each batch: reading, checking and writing one took 40 to 60 µs, for small rows in memory."""
REST_S = 0.01
"""Between turns, so that threads which still spin for the last one do not slow the next one down."""


@dataclass(frozen=True)
class _Known:
    """A search that was made before.

    Attributes:
        plan: The fastest plan, with the rates that were compared.
        rule_rows_per_s: The rate of the rule's plan.
        most_rows: If it was chosen in haste, the rows of the run that it holds for.
    """

    plan: BatchPlan
    rule_rows_per_s: float
    most_rows: int | None

    def is_short(self, rows: int) -> bool:
        return rows / self.rule_rows_per_s < LEAST_RUN_S

    def is_too_hasty(self, rows: int) -> bool:
        return self.most_rows is not None and rows > self.most_rows


def open_measured(loaded: LoadedOnnx, request: RunRequest, place: Placement) -> OpenedModel:
    """Open sessions at a place, cut and spread as is best there: as was measured before, or is now; by rule if neither is to be.

    Raises:
        DeviceError, ModelError, OutputError: See `open_onnx_runners`.
    """
    planned = recall_plan(request, loaded, [place])
    opened = open_onnx_runners(loaded, planned, [place])
    return opened if planned is not request else choose_measured_plan(opened, loaded, request)


def recall_plan(request: RunRequest, loaded: LoadedOnnx, candidates: list[Placement]) -> RunRequest:
    """Return the request with the plan that was measured before for such rows on this machine, if there is one.

    A run that is short by rule is cut by rule, as it was before anything was measured. A plan that was chosen in haste
    does not hold for longer runs.
    """
    rows = request.rows
    if not _is_open(request) or rows is None or len(candidates) != 1 or candidates[0].provider not in ON_CORES:
        return request
    known = _read(request, loaded, candidates[0])
    if known is None or known.is_short(rows) or known.is_too_hasty(rows):
        return request
    return replace(request, recorded_plan=known.plan)


def choose_measured_plan(opened: OpenedModel, loaded: LoadedOnnx, request: RunRequest) -> OpenedModel:
    """Return the model opened as is fastest for the rows of a request, if that is to be measured; else as it is.

    Args:
        opened: The model, opened by rule.
        loaded: Its file.
        request: What it was opened for. Its rows must not depend on their batch.
    """
    rule, rows, place = opened.plan, request.rows, opened.placement
    if not _is_open(request) or rows is None or place is None or place.provider not in ON_CORES:
        return opened
    if opened.spec.fixed_batch is not None or count_rows(request.example) == 0:
        return opened
    known = _read(request, loaded, place)
    if known is not None and known.is_short(rows):
        return opened
    layouts = {_layout(rule): opened}

    def time_batches(plan: BatchPlan, batches: int) -> float:
        layout = _layout(plan)
        if layout not in layouts:
            layouts[layout] = open_onnx_runners(loaded, replace(request, recorded_plan=plan), [place])
        return _time(layouts[layout], _repeat_batches(request.example, plan.batch_size, batches), batches)

    log.info("%s: measuring how its run is best cut and spread", opened.spec.name)
    chosen = opened
    try:
        search = search_plan(
            rule, rows, _other_sessions(rule, loaded.size_bytes, place), time_batches,
            opening_s=_opening_s(opened), left_s=current().left_s(),
        )  # fmt: skip
        if search is not None:
            # What is known of the file itself goes with whichever sessions run it.
            chosen = replace(layouts[_layout(search.plan)], plan=search.plan, parity=opened.parity, path=opened.path)
            _keep(search, request, loaded, place)
    except (Failure, FoOnnxError) as err:
        # The run names the row, or opens the sessions again, and fails as it would have without a search.
        reason = first_line(err.error if isinstance(err, Failure) else err, with_kind=False)
        log.info("%s: its run is cut by rule, since measuring failed: %s", opened.spec.name, reason)
    finally:
        for layout, unused in layouts.items():
            if layout not in (_layout(rule), _layout(chosen.plan)):
                unused.close()
    if chosen.runners is not opened.runners:
        for runner in opened.runners:
            runner.close()
    return chosen


def _is_open(request: RunRequest) -> bool:
    """Return whether nothing but the rule decides on the plan of a run on one device."""
    run = request.run
    return (
        request.recorded_plan is None
        and run.tuning is None
        and run.batch_size == "auto"
        and isinstance(run.device, str)
    )


def _layout(plan: BatchPlan) -> tuple[int, int, bool]:
    return plan.sessions, plan.threads, plan.spinning


def _other_sessions(rule: BatchPlan, model_bytes: int, place: Placement) -> list[BatchPlan]:
    """Return sessions beside those of the rule: one over all cores, and the same with the other choice of spinning.

    OpenVINO's threads are its own, whose spinning is not chosen. As all sessions are open at a time, those are left out whose weights
    would not fit beside the others.
    """
    may_spin = place.provider == KINDS["cpu"]
    one = replace(rule, sessions=1, threads=cpu_cores(), spinning=may_spin)
    others = [replace(rule, spinning=not rule.spinning)] if may_spin and rule.threads > 1 else []
    if rule.sessions > 1:
        others += [one, replace(one, spinning=False)] if may_spin else [one]
    fitting, open_sessions = [], rule.sessions
    for other in others:
        if (open_sessions + other.sessions) * model_bytes <= WEIGHTS_LIMIT_BYTES:
            open_sessions += other.sessions
            fitting.append(other)
    return fitting


def _opening_s(opened: OpenedModel) -> float:
    runner: Any = opened.runners[0]
    return float(runner.session.opening_s)


def _repeat_batches(inputs: Inputs, size: int, count: int) -> Iterator[Batch]:
    """Yield whole batches of a size, over and over from the same rows."""
    rows = count_rows(inputs)
    if rows < size:
        inputs = {name: array[np.arange(size) % rows] for name, array in inputs.items()}
    whole = [batch for batch in cut_inputs(inputs, size) if count_rows(batch) == size]
    ids = np.arange(size)
    return (Batch(ids, batch, None, 0) for batch in itertools.islice(itertools.cycle(whole), count))


def _time(opened: OpenedModel, batches: Iterator[Batch], count: int) -> float:
    """Run batches on the runners of a run, and return the seconds that they would take in it."""
    time.sleep(REST_S)
    with begin(None) as control:
        begun = time.perf_counter()
        run_in_threads(opened.runners, batches, lambda batch, output: None, control)
        return time.perf_counter() - begun + count * BATCH_S


def _key(request: RunRequest, loaded: LoadedOnnx, place: Placement) -> dict[str, Any]:
    """Return what a measured plan depends on besides the machine."""
    # What was fused or quantised since the file was read counts too.
    graph = (loaded.proto if loaded.fused is None else loaded.fused.model).graph
    operators = [f"{node.domain} {node.op_type}" for node in graph.node]
    return {
        "model": loaded.model.sha256,
        "place": [place.provider, place.options],
        "operators": hashlib.sha256("\n".join(operators).encode()).hexdigest(),
        "precision": request.run.precision,
        "onnxruntime": runtime().__version__,
        "rows": [[name, str(array.dtype), array.shape[1:]] for name, array in request.example.items()],
    }


def _read(request: RunRequest, loaded: LoadedOnnx, place: Placement) -> _Known | None:
    """Return what was measured for such rows on this machine before, if anything was."""
    value = Measurements.of_user().read(KIND, _key(request, loaded, place))
    if value is None:
        return None
    try:
        rates = tuple(MeasuredRate(**rate) for rate in value["plan"]["measured"])
        plan, most_rows = replace(plan_of_record(value["plan"]), measured=rates), value["most_rows"]
        known = _Known(plan, float(value["rule_rows_per_s"]), None if most_rows is None else int(most_rows))
        if known.rule_rows_per_s > 0:
            return known
        reason = f"a rate of {known.rule_rows_per_s:g} rows/s"
    except (FoOnnxError, LookupError, TypeError, ValueError, ArithmeticError) as err:
        reason = first_line(err)
    warn_once(f"what was measured of {loaded.model.spec.name} before is not usable: {reason}")
    return None


def _keep(search: PlanSearch, request: RunRequest, loaded: LoadedOnnx, place: Placement) -> None:
    value = {
        "plan": search.plan.to_record(),
        "rule_rows_per_s": search.rule_rows_per_s,
        "most_rows": request.rows if search.is_hasty else None,
    }
    Measurements.of_user().keep(KIND, _key(request, loaded, place), value)
