"""The only road from a framework's model to ONNX: export or cache, meaning of the output, head, comparison.

An export that is not compared with its model is made anew; a cached one could be another model's.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from ..contracts.batch import count_rows, first_row, pad_rows
from ..contracts.parity_report import ParityReport
from ..contracts.spec import ModelSpec
from ..control.announcing import announce
from ..control.run_control import current
from ..errors import ExportError, FoOnnxError, ModelError, OutputError, PluginError, RunError, StoreWriteError
from ..fusions.fused_graph import fuse_graph
from ..models.onnx_file import external_locations
from ..models.onnx_model import LoadedOnnx, load_onnx
from ..plugin_kit.graph_checks import graph_inputs
from ..runtime.devices import placements
from ..runtime.faster_provider import take_faster_provider
from ..runtime.measured_plan import choose_measured_plan, recall_plan
from ..runtime.open_runners import open_onnx_runners
from ..runtime.opened import OpenedModel
from ..runtime.original_rows import ask_original
from ..runtime.request import RunRequest
from ..runtime.session import available_providers
from .cache import ExportCache, key_of
from .heads import add_head
from .output_kind import with_output_kind
from .parity import expect_rows, head_of, measure
from .probes import find_difference, guard_export, may_be_probed
from .reference import Reference, with_spread_rows

log = logging.getLogger("fo_onnx.engine")
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
TRACED_ROWS = 3
"""Rows that a converter traces with: few, and not one, since tracers take an axis of one for a constant."""


@dataclass(frozen=True)
class VerifiedExport:
    """A model in ONNX, with its head, and how it compared with the original.

    Attributes:
        loaded: The file in a temporary folder.
        opened: Its open sessions.
        parity: The comparison.
        origin: ``"new"`` or ``"cached"``.
    """

    loaded: LoadedOnnx
    opened: OpenedModel
    parity: ParityReport
    origin: str


def export_unverified(request: RunRequest, reference: Reference, folder: Path) -> LoadedOnnx:
    """Export the requested model anew, with its head, and compare it with nothing; see `prepare_onnx`."""
    loaded, _ = _export(request, reference, folder / "model.onnx")
    return _with_head(loaded, request, reference)


def prepare_onnx(
    request: RunRequest, reference: Reference, folder: Path, fingerprint: str, *, ask: bool
) -> VerifiedExport:
    """Export the requested model, or take its export from the cache, and compare it with the original.

    Args:
        request: The model, the rows, and how they are run: the comparison is made with the sessions of the run.
        reference: The original, and what it gives for the rows.
        folder: A temporary folder, for the files.
        fingerprint: The model's, for the cache.
        ask: Whether the original is asked in the run to come, and so in the comparison.

    Returns:
        The export. `ParityReport.passed` says whether it is the same; if not, nothing of it stays in the cache.

    Raises:
        ExportError, ModelError, RunError, DeviceError: It cannot be exported or opened.
        OutputError: Its output is no distribution.
    """
    plugin = request.plugin
    assert plugin is not None
    reference = with_spread_rows(reference, request)
    cache = ExportCache.of_user()
    key = key_of(plugin, fingerprint, request.example, request.model_options, request.output)
    # A cached export may be damaged, or of a model that differs in what no digest sees.
    cached_path = folder / "cached.onnx"
    with current().calling("the copy of its cached export"):
        spec = cache.fetch(key, cached_path)
    if spec is not None:
        try:
            cached = _compare(_checked(cached_path, spec, request), request, reference, "cached", ask)
            if cached.parity.passed:
                return cached
            problem = cached.parity.verdict()
            cached.opened.close()
        except (ExportError, ModelError, RunError) as err:
            problem = str(err)
        log.info("the cached export %s is thrown away, and the model is exported anew: %s", key, problem)
        cache.drop(key)
    loaded, spec = _export(request, reference, folder / "model.onnx")
    export = _compare(loaded, request, reference, "new", ask)
    if export.parity.passed:
        with current().calling("keeping its export in the cache"):
            cache.keep(key, loaded.model.path, spec, external_locations(loaded.proto))
    return export


def _export(request: RunRequest, reference: Reference, path: Path) -> tuple[LoadedOnnx, ModelSpec]:
    """Have the plugin export the model; return the file, without a head, and the model as the plugin describes it."""
    assert request.plugin is not None
    control = current()
    announce(f"exporting {reference.model.spec.name} from {request.plugin.name} to ONNX", request.run.progress)
    traced = {name: pad_rows(array[:TRACED_ROWS], 2) for name, array in request.example.items()}
    try:
        with control.calling("its export"):
            spec = request.plugin.export(request.model, traced, path, request.model_options, request.output)
    except ExportError as err:
        if isinstance(err.__cause__, OSError) and err.__cause__.errno in _NO_ROOM:
            raise StoreWriteError(
                f"writing the export to {path.parent}: {err.__cause__.strerror}. Make room there."
            ) from err
        raise
    control.check("after the export")
    return _checked(path, spec, request), spec


def _checked(path: Path, spec: ModelSpec, request: RunRequest) -> LoadedOnnx:
    """Parse an export that has no head yet.

    Raises:
        ExportError: It cannot be used, or its batch size is fixed, and not by the model itself.
    """
    spec = replace(spec, name=request.model_options.model_name or spec.name)
    try:
        loaded = load_onnx(path, spec=spec)
    except (ExportError, OutputError, PluginError):
        raise
    except FoOnnxError as err:
        raise ExportError(f"the exported file cannot be used: {err}") from err
    # Inputs of text have no dtype and no shape here.
    fixed = [
        str(i) for i in graph_inputs(loaded.proto) if i.dtype and i.shape[:1] not in ((None,), (spec.fixed_batch,))
    ]
    if fixed:
        raise ExportError(
            f"the export of {spec.name} has a fixed batch size ({'; '.join(fixed)}); its code depends on the batch's size."
        )
    return loaded


def _with_head(exported: LoadedOnnx, request: RunRequest, reference: Reference) -> LoadedOnnx:
    # Names are no part of what is exported: a cached export may be of the same model under other names.
    names = reference.model.spec.class_names
    exported = replace(exported, model=exported.model.with_spec(class_names=names))
    if request.output.output_transform is not None:
        return guard_export(exported, reference.model, reference.inputs)
    # The graph says what its output means by its last node, which a guard takes the place of.
    spec = with_output_kind(exported.model.spec, reference.raw, request.output, exported.proto)
    return add_head(guard_export(exported, reference.model, reference.inputs), spec)


def _compare(exported: LoadedOnnx, request: RunRequest, reference: Reference, origin: str, ask: bool) -> VerifiedExport:
    """Add the head and compare with the original, with fused nodes if these agree with it, else without them."""
    loaded = _with_head(exported, request, reference)
    rows, kind = count_rows(reference.inputs), "its export" if origin == "new" else "its cached export"
    announce(f"comparing {reference.model.spec.name} with {kind} on {rows} rows", request.run.progress)
    # Without a run to come the file is compared as it is.
    fused = fuse_graph(loaded.proto) if ask else None
    if fused is not None:
        try:
            export = _compare_as_given(replace(loaded, fused=fused), request, reference, origin, ask)
            if export.parity.agrees:
                return export
            problem = export.parity.verdict()
            export.opened.close()
        except (ModelError, RunError) as err:
            problem = str(err)
        log.info("%s runs without fused nodes: %s", loaded.model.spec.name, problem)
    return _compare_as_given(loaded, request, reference, origin, ask)


def _compare_as_given(
    loaded: LoadedOnnx, request: RunRequest, reference: Reference, origin: str, ask: bool
) -> VerifiedExport:
    """Open the sessions of the run, and compare them with the original."""
    candidates = placements(request.run.device, request.run.precision, available_providers())
    transform = request.output.output_transform
    # Only of what is run is the plan measured, and only if a row is the same in every batch.
    request = recall_plan(request, loaded, candidates) if ask else request
    opened = open_onnx_runners(loaded, request, candidates)
    try:
        expectation = expect_rows(reference, opened.spec, batch_size=opened.plan.batch_size, transform=transform)
        if ask and expectation.dependence is None:
            opened = take_faster_provider(choose_measured_plan(opened, loaded, request), loaded, request)
        on_its_own = opened.runners[0]
        if ask:
            opened = ask_original(opened, reference.model, request.output, first_row(reference.inputs))
        parity = measure(
            reference,
            opened.runners[0],
            batch_size=opened.plan.batch_size,
            tolerance=request.model_options.tolerance,
            transform=transform,
            expectation=expectation,
        )
        if parity.passed and may_be_probed(reference.model, reference.inputs):
            head = head_of(opened.spec, transform)
            difference = find_difference(
                loaded,
                lambda row: head(reference.model.forward(row), 1),
                on_its_own,
                reference.inputs,
                parity.tolerance,
            )
            parity = replace(parity, problem=difference)
    except BaseException:
        opened.close()
        raise
    return VerifiedExport(loaded, opened, parity, origin)
