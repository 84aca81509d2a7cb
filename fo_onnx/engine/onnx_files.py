"""ONNX files as runners: the decision on a file's output, its head, and its sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import head
from ..errors import DeviceError, ModelError, OptionError, OutputError, reading
from ..model import OnnxModel, raw_output_info, without_parity
from ..model_file import external_files, load_proto
from ..options import OutputOptions
from ..parity import ParityReport
from ..probabilities import check_raw_shape
from ..protocols import Inputs, Runner
from ..run_control import current
from ..spec import LOGIT_KINDS
from .convert import fuse_head
from .decide import check_class_names, class_count, decide
from .providers import Placement, cpu_cores, placements
from .runners import OnnxRunner
from .selection import Job, Selection, counted
from .session import Session, available_providers

log = logging.getLogger("fo_onnx.engine")


def select_file(job: Job, model: OnnxModel) -> Selection:
    """The sessions of a job on an ONNX file.

    Raises:
        ModelError: The file has changed since it was opened.
        OptionError: The native runner was asked for, which a file has not.
    """
    if job.run.engine == "native":
        raise OptionError(f"engine='native' was asked for, but {model.path} is an ONNX file and has no other runner.")
    with current().calling("reading its file"):
        sha256 = OnnxModel.open(model.path, output_name=_foreign_output(model)).sha256
    if sha256 != model.sha256:
        raise ModelError(f"{model.path} has changed since it was opened; open it again with OnnxModel.open.")
    candidates = placements(job.run.device, job.run.precision, available_providers())
    try:
        model = settle_output(model, job.example, job.output, candidates[-1])
        if job.model_options.model_name is not None:
            model = model.described(name=job.model_options.model_name)
        return open_sessions(job, model, candidates)
    except ModelError as err:
        if str(model.path) in str(err):
            raise
        raise ModelError(f"opening the model {model.path}: {err}") from err


def _foreign_output(model: OnnxModel) -> str | None:
    """Which output to open a file with: of ours there is but one."""
    return model.spec.output.name if model.probs_output is None else None


def settle_output(model: OnnxModel, example: Inputs, output: OutputOptions, placement: Placement) -> OnnxModel:
    """The decision on the output of a file: the recorded one, unless the caller says otherwise, else made now.

    Args:
        model: The file. One of ours may come with another meaning, another temperature or a foreign file's none.
        example: The calibration batch.
        output: What the caller says.
        placement: Where a calibration batch is run if one is needed.
    """
    spec = model.spec
    check_class_names(output.class_names, spec)
    changed = output.output not in ("auto", spec.output_kind) or output.temperature not in (1, spec.temperature)
    if spec.output_kind is not None and not changed:
        model = model.described(class_names=check_class_names(output.class_names, spec))
        if output.output_transform is None:
            return model
    if output.output_transform is not None:
        return _not_compared(model, "an output_transform takes the place of the head that was compared")
    if spec.output_kind is not None and output.output == "auto":
        output = replace(output, output=spec.output_kind)
    proto = load_proto(model.path)
    told = head.told_by_graph(proto, spec.output.name) if output.output == "auto" and spec.output_kind is None else None
    # Where the graph tells, no calibration batch is needed: rows that contradict it come out as NaN and are reported.
    raw = None if told is not None else _run_raw(model, example, placement)
    kind = decide(raw, output, told, spec.name)
    classes = class_count(kind, raw.shape if raw is not None else spec.output.shape)
    if classes is None:
        classes = class_count(kind, _run_raw(model, example, placement).shape)
    temperature = spec.temperature if output.temperature == 1 and kind in LOGIT_KINDS else float(output.temperature)
    spec = replace(spec, output_kind=kind, classes=classes, temperature=temperature)
    spec = replace(spec, class_names=check_class_names(output.class_names, spec))
    model = _not_compared(model, "it was compared with another meaning or temperature of its output")
    return replace(model, spec=spec, probs_output=None, logits_output=None)


def _not_compared(model: OnnxModel, why: str) -> OnnxModel:
    """The model, whose recorded comparison was of something else than what is run."""
    return replace(model, provenance=without_parity(model.provenance, why))


def _run_raw(model: OnnxModel, example: Inputs, placement: Placement) -> Any:
    """The raw output of a file for the first rows."""
    runner = _raw_runner(model, placement, cpu_cores())
    raw = runner.run_raw(example)
    check_raw_shape(raw.shape, None, len(next(iter(example.values()))), model.spec.name)
    return raw


def _raw_runner(model: OnnxModel, placement: Placement, threads: int, transform: Any = None) -> OnnxRunner:
    proto = load_proto(model.path)
    head.remove(proto, raw_output_info(proto, model.spec))
    session = Session(proto.SerializeToString(), model.path.parent, placement, threads, model.spec.name)
    return OnnxRunner(
        session, model.spec, placement.device, probs=model.spec.output.name, logits=None, transform=transform
    )


def open_sessions(job: Job, model: OnnxModel, candidates: list[Placement]) -> Selection:
    """Opens as many sessions as the plan says at the first placement that loads (``auto``), or at each (a list)."""
    if isinstance(job.run.device, str):
        *better, last = candidates
        for placement in better:
            try:
                return _open_at(job, model, [placement])
            except DeviceError as err:
                log.warning("device='auto' leaves %s aside: %s", placement.device, err)
        return _open_at(job, model, [last])
    return _open_at(job, model, candidates)


def _open_at(job: Job, model: OnnxModel, places: list[Placement]) -> Selection:
    spec, output = model.spec, job.output
    proto = load_proto(model.path)
    size = model.path.stat().st_size + sum(f.stat().st_size for f in external_files(proto, model.path.parent))
    tuning = job.tuning(size, places[0], spec.fixed_batch)
    if len(places) > 1:
        tuning = replace(tuning, sessions=len(places), threads=max(cpu_cores() // len(places), 1))
    sessions = places if len(places) > 1 else places * tuning.sessions
    make = _session_maker(model, output, tuning.threads)
    runners: list[Runner] = [make(p) for p in sessions]
    cpu_nodes = max(r.session.cpu_nodes for r in runners if isinstance(r, OnnxRunner))
    found = Selection(
        runners, spec, tuning, model.sha256, places[0], cpu_nodes, path=model.path, opset=head.opset_of(proto)
    )
    measured = model.provenance.get("parity")
    if measured is not None:
        with reading(model.path, ModelError, "reading the comparison that is recorded in"):
            found.parity = ParityReport.from_dict(measured)
        if found.parity.unknown is not None:
            log.warning(
                "%s: its parity is unknown, since %s. fo_onnx.verify compares a file anew; fo_onnx.export makes it again.",
                model.path, found.parity.unknown,
            )  # fmt: skip
    return counted(found, job)


def _session_maker(model: OnnxModel, output: OutputOptions, threads: int) -> Callable[[Placement], OnnxRunner]:
    if output.output_transform is not None:
        return lambda place: _raw_runner(model, place, threads, output.output_transform)
    content: Path | bytes = model.path
    if model.probs_output is None:
        proto = load_proto(model.path)
        model = fuse_head(proto, model)
        content = proto.SerializeToString()
    probs, logits = model.probs_output, model.logits_output if output.keep_logits else None
    assert probs is not None
    if output.keep_logits and logits is None:
        raise OutputError(
            f"keep_logits=True was asked for, but {model.spec.name} gives {model.spec.output_kind}, which has no logits. Export "
            "the model before its softmax."
        )

    def make(place: Placement) -> OnnxRunner:
        session = Session(content, model.path.parent, place, threads, model.spec.name)
        return OnnxRunner(session, model.spec, place.device, probs=probs, logits=logits)

    return make
