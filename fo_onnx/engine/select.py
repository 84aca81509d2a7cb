"""Which runner a job gets, and why: the exported model where that works and is the same, else the framework's own."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import head
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
)
from ..model import OnnxModel, external_files, load_proto, raw_output_info
from ..options import ModelOptions, OutputOptions, RunOptions
from ..parity import ParityReport, measure, mixing
from ..probabilities import apply_head, check_raw_shape
from ..protocols import Exporter, Inputs, RawModel, Runner, RunOutput
from ..spec import LOGIT_KINDS, ModelSpec, TensorSpec
from .cache import ExportCache, key_of
from .callables import CallableExporter
from .convert import Cached, convert, converted_or_anew, decided, export_raw, fuse_head, native_example
from .decide import check_class_names, class_count, decide
from .fallback import warn_of_fallback
from .nan_rows import NanRowsNative
from .providers import Placement, cpu_cores, parse_device, placements
from .runners import NativeRunner, OnnxRunner, transformed
from .session import Session, available_providers
from .tuning import Tuning, plan

log = logging.getLogger("fo_onnx.engine")


@dataclass
class Selection:
    """The runners of a job, and what is to be recorded of them.

    Attributes:
        runners: Those that run batches side by side.
        spec: The model, with the decision on its output.
        tuning: How the run is cut and spread.
        placement: Where the sessions run; ``None`` for native runners.
        cpu_nodes: Nodes that run on the CPU though another device was asked for.
        reason: Why the runner is not the first choice; ``None`` where it is.
        parity: How the exported model compared, where there was something to compare.
        path: The model's file, where it came from one.
        sha256: Digest of the model.
        export_s: Seconds that the export and the comparison took.
        versions: Versions of the framework's packages.
        opset: The model's default operator set, where it ran in ONNX.
        export: ``"new"`` or ``"cached"`` where a framework's model was exported for this run.
        native: Gives the native runner that steps in on the way, where there is one.
    """

    runners: list[Runner]
    spec: ModelSpec
    tuning: Tuning
    sha256: str
    placement: Placement | None = None
    cpu_nodes: int = 0
    reason: str | None = None
    parity: ParityReport | None = None
    path: Path | None = None
    export_s: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    opset: int | None = None
    export: str | None = None
    native: Callable[[], Runner] | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        """Closes the runners and removes temporary files."""
        for runner in self.runners:
            runner.close()
        self._stack.close()


@dataclass(frozen=True)
class Job:
    """What a selection is made for.

    Attributes:
        model: The model.
        exporter: Its framework's exporter; ``None`` for ONNX files.
        example: The first rows of the data.
        rows: Number of rows to run, where it is known.
        model_options: How it is opened and converted.
        output: What its output means.
        run: How it is run.
        recorded: The plan of a run that is gone on with.
    """

    model: Any
    exporter: Exporter | None
    example: Inputs
    rows: int | None
    model_options: ModelOptions
    output: OutputOptions
    run: RunOptions
    recorded: Tuning | None = None

    def tuning(self, model_bytes: int, placement: Placement | None, fixed_batch: int | None = None) -> Tuning:
        """The plan for a model of `model_bytes` at a placement; ``None`` is the native runner's."""
        if self.recorded is not None:
            return self.recorded
        cpu = placement is None or placement.provider == "CPUExecutionProvider"
        return plan(
            self.example,
            self.rows,
            cpu=cpu,
            cores=cpu_cores(),
            model_bytes=model_bytes,
            batch_size=self.run.batch_size,
            fixed_batch=fixed_batch,
        )


def select(job: Job) -> Selection:
    """Chooses and opens the runners of a job.

    Raises:
        ExportError, ParityError, DeviceError, ModelError, OutputError: What keeps the model from being run as asked.
    """
    if isinstance(job.model, OnnxModel):
        return _select_file(job, job.model)
    assert job.exporter is not None
    return _select_framework(job, job.exporter)


def _select_file(job: Job, model: OnnxModel) -> Selection:
    if job.run.engine == "native":
        raise OptionError(f"engine='native' was asked for, but {model.path} is an ONNX file and has no other runner.")
    if OnnxModel.open(model.path, output_name=_foreign_output(model)).sha256 != model.sha256:
        raise ModelError(f"{model.path} has changed since it was opened; open it again with OnnxModel.open.")
    candidates = placements(job.run.device, job.run.precision, available_providers())
    model = settle_output(model, job.example, job.output, candidates[-1])
    if job.model_options.model_name is not None:
        model = model.described(name=job.model_options.model_name)
    return _open_sessions(job, model, candidates)


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
        return model.described(class_names=check_class_names(output.class_names, spec))
    if output.output_transform is not None:
        return model
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
    return replace(model, spec=spec, probs_output=None, logits_output=None)


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


def _open_sessions(job: Job, model: OnnxModel, candidates: list[Placement]) -> Selection:
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
        found.parity = ParityReport.from_dict(measured)
    return _counted(found, job)


def _counted(found: Selection, job: Job) -> Selection:
    """Counts the classes where only a run tells, as with an ``output_transform``."""
    if found.spec.classes is None or job.output.output_transform is not None:
        classes = found.runners[0].run(job.example).probs.shape[1]
        own = found.spec.class_names if found.spec.class_names and len(found.spec.class_names) == classes else None
        spec = replace(found.spec, classes=classes, output_kind=None, class_names=own)
        found.spec = replace(spec, class_names=check_class_names(job.output.class_names, spec))
    return found


def empty_selection(classes: int, spec: ModelSpec | None, output: OutputOptions) -> Selection:
    """No runner, for data without a row; what is known of the model is recorded all the same."""
    spec = spec or ModelSpec(inputs=(), output=TensorSpec("output", "float32", ()), framework="unknown")
    spec = replace(
        spec, classes=classes, class_names=check_class_names(output.class_names, replace(spec, classes=None))
    )
    return Selection([_NoRunner(spec)], spec, Tuning(1, 1, 1, "no rows"), "")


class _NoRunner:
    """The runner of a run without rows."""

    device, kind = "none", "none"

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def run(self, inputs: Inputs) -> RunOutput:
        """Never called: there is no batch."""
        raise AssertionError("a run without rows has a batch")

    def close(self) -> None:
        """Nothing to free."""


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


def _select_framework(job: Job, exporter: Exporter) -> Selection:
    begun = time.monotonic()
    reference = exporter.native(job.model, job.example, "auto", job.model_options, job.output)
    try:
        raw = native_example(reference, job.example, job.output)
    except (DataError, OutputError) as err:
        if not _is_function(job.model) or isinstance(exporter, CallableExporter):
            raise
        # A function that holds a framework's model may take and give numpy all the same.
        return _select_plain(job, err)
    fingerprint = exporter.fingerprint(job.model)
    if job.run.engine == "native":
        return _native(job, exporter, reference, raw, fingerprint, None)
    if job.run.engine == "auto":
        reason = _native_only(job, exporter)
        if reason is not None:
            return _by_choice(job, exporter, reference, raw, fingerprint, reason)
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fo-onnx-"))
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
    found = _open_sessions(job, model, candidates)
    found.export = cached.how
    _answer_nan_natively(found, reference, job.output)
    found.parity = measure(
        reference,
        found.runners[0],
        job.example,
        batch_size=found.tuning.batch_size,
        tolerance=job.model_options.tolerance,
        transform=None if transform is None else lambda out: transformed(transform, out, len(out)),
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
    turn = threading.Lock()
    found.runners = [NanRowsNative(r, original, turn) if isinstance(r, OnnxRunner) else r for r in found.runners]


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
    runner = _native_runner(job, exporter, reference, spec)
    tuning = replace(job.tuning(0, None), sessions=1, threads=cpu_cores())
    found = Selection([runner], spec, tuning, fingerprint, reason=reason, versions=exporter.versions())
    return _counted(found, job)


def _native_runner(job: Job, exporter: Exporter, reference: RawModel, spec: ModelSpec) -> Runner:
    asked = job.run.device
    device = str(parse_device(asked)) if isinstance(asked, str) else tuple(str(parse_device(n)) for n in asked)
    raw = reference
    if device not in ("auto", reference.device):
        raw = exporter.native(job.model, job.example, device, job.model_options, job.output)
    return NativeRunner(raw, spec, keep_logits=job.output.keep_logits, transform=job.output.output_transform)
