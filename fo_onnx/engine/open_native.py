"""Opens the native runner: a model in its own framework, with what was decided on its output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..contracts.batch import Inputs, count_rows, cut_inputs, first_row
from ..contracts.batch_plan import BatchPlan
from ..contracts.exporter import Devices
from ..contracts.parity_report import ParityReport
from ..contracts.runner import Runner
from ..contracts.spec import LOGIT_KINDS, ModelSpec
from ..conversion.batch_effects import measure_batch_effects
from ..conversion.output_kind import with_output_kind
from ..conversion.parity import head_of
from ..conversion.reference import Reference
from ..errors import OutputError
from ..runtime.devices import cpu_cores, parse_device
from ..runtime.native_runner import NativeRunner
from ..runtime.opened import OpenedModel
from ..runtime.request import RunRequest, with_class_count
from ..runtime.turns import open_native_model


def open_native(
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
    runner = open_native_runner(request, reference, spec, _precomputed_batches(request, reference))
    return OpenedModel(
        runners=(runner,), spec=with_class_count(spec, runner, request, reference.plan.batch_size),
        plan=plan_native(reference),
        sha256=fingerprint, reason=reason, parity=parity, versions=request.plugin.versions(),
    )  # fmt: skip


def open_native_runner(
    request: RunRequest, reference: Reference, spec: ModelSpec, precomputed: list[tuple[Inputs, Any]] | None = None
) -> Runner:
    """Return the runner on the device that was asked for; the reference is used if it is there already."""
    is_there = is_on_device(request, reference)
    model = reference.model if is_there else open_native_model(request, _device_of(request))
    return NativeRunner(
        model, spec, keep_logits=request.output.keep_logits, transform=request.output.output_transform,
        precomputed=precomputed if is_there and precomputed else (), known_row=first_row(reference.inputs),
    )  # fmt: skip


def plan_native(reference: Reference, batch_size: int | None = None) -> BatchPlan:
    """Return the plan of a native run: one batch at a time, over all cores, in batches of the rule or of a size that was measured."""
    plan = replace(reference.plan, sessions=1, threads=cpu_cores(), spinning=False)
    return plan if batch_size in (None, plan.batch_size) else replace(plan, batch_size=batch_size, reason="measured")


def is_on_device(request: RunRequest, reference: Reference) -> bool:
    """Return whether the model is on the device that was asked for."""
    return _device_of(request) in ("auto", reference.model.device)


def _device_of(request: RunRequest) -> Devices:
    name = request.run.device
    return str(parse_device(name)) if isinstance(name, str) else tuple(str(parse_device(n)) for n in name)


def _find_batch_effects(request: RunRequest, reference: Reference, spec: ModelSpec) -> str | None:
    """Return what a row of the original depends on besides its input; ``None`` if on nothing."""
    head = head_of(spec, request.output.output_transform)
    effects = measure_batch_effects(
        lambda batch: head(reference.model.forward(batch), count_rows(batch)),
        request.example,
        min(reference.plan.batch_size, reference.prepared_rows),
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
