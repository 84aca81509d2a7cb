"""Sessions over one parsed ONNX file: at the first placement that loads, or at each one that was asked for."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..contracts.batch import first_row
from ..errors import DeviceError, OutputError
from ..models.graph_head import opset_of
from ..models.onnx_model import LoadedOnnx
from .devices import KINDS, Placement, cpu_cores
from .onnx_runner import OnnxRunner
from .opened import OpenedModel
from .request import RunRequest, with_class_count
from .session import Session

log = logging.getLogger("fo_onnx.engine")


def open_onnx_runners(loaded: LoadedOnnx, request: RunRequest, candidates: list[Placement]) -> OpenedModel:
    """Open as many sessions as the plan says.

    Args:
        loaded: The file, with its head; without one if an ``output_transform`` takes the head's place.
        request: What they are opened for.
        candidates: For one device the placements to try, best first; for a list of devices one placement each.

    Raises:
        DeviceError: No placement loads.
        ModelError: ONNX Runtime refuses the model.
        OutputError: Logits were asked for, and the model has none.
    """
    if not isinstance(request.run.device, str):
        return _open_at(loaded, request, candidates)
    *better, last = candidates
    for placement in better:
        try:
            return _open_at(loaded, request, [placement])
        except DeviceError as err:
            log.warning("device='auto' leaves %s aside: %s", placement.device, err)
    return _open_at(loaded, request, [last])


def _open_at(loaded: LoadedOnnx, request: RunRequest, placements: list[Placement]) -> OpenedModel:
    spec = loaded.model.spec
    probs, logits = _outputs(loaded, request)
    on_cpu = placements[0].provider == KINDS["cpu"]
    # OpenVINO's kernels run on the same cores.
    is_openvino = placements[0].provider == KINDS["openvino"]
    plan = request.plan_batches(
        on_cpu=on_cpu or is_openvino, model_bytes=loaded.size_bytes, fixed_batch=spec.fixed_batch
    )
    if len(placements) > 1:
        threads = max(cpu_cores() // len(placements), 1)
        plan = replace(plan, sessions=len(placements), threads=threads, spinning=False)
    else:
        placements = placements * plan.sessions
    fused = loaded.fused if on_cpu else None
    content = loaded.content if fused is None else fused.model.SerializeToString()
    runners = []
    for place in placements:
        session = Session(content, loaded.model.path.parent, place, plan.threads, spec.name, spinning=plan.spinning)
        runners.append(
            OnnxRunner(
                session, spec, place.device, probs=probs, logits=logits, transform=request.output.output_transform,
                # If the original is there, it says which rows are at fault.
                known_row=first_row(request.example) if request.plugin is None else None,
            )
        )  # fmt: skip
    return OpenedModel(
        tuple(runners), with_class_count(spec, runners[0], request, plan.batch_size), plan, loaded.model.sha256, placements[0],
        cpu_nodes=max(runner.session.cpu_nodes for runner in runners), opset=opset_of(loaded.proto),
        fusions={} if fused is None else fused.counts, session_opset=opset_of(loaded.proto if fused is None else fused.model),
    )  # fmt: skip


def _outputs(loaded: LoadedOnnx, request: RunRequest) -> tuple[str, str | None]:
    """Return the names of the graph's outputs that runners read: distributions, and logits if they are kept."""
    model = loaded.model
    if request.output.output_transform is not None:
        return model.spec.output.name, None
    assert model.probs_output is not None
    if request.output.keep_logits and model.logits_output is None:
        raise OutputError(
            f"keep_logits=True was asked for, but {model.spec.name} gives {model.spec.output_kind}, which has no logits. Export "
            "the model before its softmax."
        )
    return model.probs_output, model.logits_output if request.output.keep_logits else None
