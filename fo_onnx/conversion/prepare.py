"""The only road from a framework's model to ONNX: export or cache, meaning of the output, head, comparison.

An export that is not compared with its model is made anew; a cached one could be another model's.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..contracts.batch import Array
from ..contracts.exporter import Exporter
from ..contracts.parity_report import ParityReport
from ..contracts.runner import Runner
from ..contracts.spec import ModelSpec
from ..control.run_control import current
from ..errors import ExportError, FoOnnxError, ModelError, OutputError, PluginError, RunError, StoreWriteError
from ..models.onnx_file import has_external_data
from ..models.onnx_model import LoadedOnnx, load_onnx
from ..plugin_kit.graph_checks import graph_inputs
from ..runtime.devices import placements
from ..runtime.nan_rows import route_nan_rows
from ..runtime.open_runners import OnnxRunners, open_onnx_runners
from ..runtime.request import RunRequest
from ..runtime.session import available_providers
from ..runtime.transform import apply_transform
from .cache import ExportCache, key_of
from .heads import add_head
from .output_kind import with_output_kind
from .parity import measure
from .reference import Reference

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("fo_onnx.engine")
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
TRACED_ROWS = 3
"""Rows that a converter traces with: few, and not one, since tracers take an axis of one for a constant."""


@dataclass(frozen=True)
class VerifiedExport:
    """A model in ONNX, with its head, and how it compared with the original.

    Attributes:
        loaded: The file in a temporary folder.
        opened: Its open sessions; ``None`` if it was not compared.
        runners: The runners over them, of which the first was compared.
        parity: The comparison; ``None`` if it was not compared.
        origin: ``"new"`` or ``"cached"``.
    """

    loaded: LoadedOnnx
    opened: OnnxRunners | None
    runners: tuple[Runner, ...]
    parity: ParityReport | None
    origin: str

    @property
    def is_same(self) -> bool:
        """Whether it gives the same distributions as the original."""
        return self.parity is not None and self.parity.passed

    def close(self) -> None:
        """Close its sessions."""
        if self.opened is not None:
            self.opened.close()


def prepare_onnx(
    request: RunRequest,
    reference: Reference,
    folder: Path,
    *,
    fingerprint: str | None,
    route_nan: bool = True,
) -> VerifiedExport:
    """Export the requested model, or take its export from the cache, and compare it with the original.

    Args:
        request: The model, the rows, and how they are run: the comparison is made with the sessions of the run.
        reference: The original, and what it gives for the rows.
        folder: A temporary folder, for the files.
        fingerprint: The model's, for the cache; ``None`` if the export is not to be compared.
        route_nan: Whether the original answers rows with NaN in the run to come, and so in the comparison.

    Returns:
        The export. `VerifiedExport.is_same` says whether it is the same; if not, nothing of it stays in the cache.

    Raises:
        ExportError, ModelError, RunError, DeviceError: It cannot be exported or opened.
        OutputError: Its output is no distribution.
    """
    plugin = request.plugin
    assert plugin is not None
    if fingerprint is None:
        new = _export(request, plugin, folder / "model.onnx")
        return VerifiedExport(_with_head(new.loaded, request, reference), None, (), None, "new")
    cache = ExportCache.of_user()
    key = key_of(plugin, fingerprint, request.example, request.model_options, request.output)
    # A cached export may be damaged, or of a model that differs in what no digest sees.
    cached_path = folder / "cached.onnx"
    with current().calling("the copy of its cached export"):
        spec = cache.fetch(key, cached_path)
    if spec is not None:
        try:
            cached = _compare(_checked(cached_path, spec, request), request, reference, "cached", route_nan)
            if cached.is_same:
                return cached
            assert cached.parity is not None
            problem = cached.parity.verdict()
            cached.close()
        except (ExportError, ModelError, RunError) as err:
            problem = str(err)
        log.info("the cached export %s is thrown away, and the model is exported anew: %s", key, problem)
        cache.drop(key)
    new = _export(request, plugin, folder / "model.onnx")
    export = _compare(new.loaded, request, reference, "new", route_nan)
    if export.is_same:
        with current().calling("keeping its export in the cache"):
            cache.keep(key, new.loaded.model.path, new.spec, new.external)
    return export


@dataclass(frozen=True)
class _NewExport:
    """What a plugin has just exported.

    Attributes:
        loaded: The file, without a head.
        spec: The model as the plugin describes it.
        external: A copy of the graph, which is small then, if its weights lie beside the file.
    """

    loaded: LoadedOnnx
    spec: ModelSpec
    external: onnx.ModelProto | None


def _export(request: RunRequest, plugin: Exporter, path: Path) -> _NewExport:
    import onnx

    control = current()
    traced = {name: _at_least_two(array[:TRACED_ROWS]) for name, array in request.example.items()}
    try:
        with control.calling("its export"):
            spec = plugin.export(request.model, traced, path, request.model_options, request.output)
    except ExportError as err:
        if isinstance(err.__cause__, OSError) and err.__cause__.errno in _NO_ROOM:
            raise StoreWriteError(
                f"writing the export to {path.parent}: {err.__cause__.strerror}. Make room there."
            ) from err
        raise
    control.check("after the export")
    loaded = _checked(path, spec, request)
    external = None
    if has_external_data(loaded.proto):
        external = onnx.ModelProto()
        external.CopyFrom(loaded.proto)
    return _NewExport(loaded, spec, external)


def _checked(path: Path, spec: ModelSpec, request: RunRequest) -> LoadedOnnx:
    """Parse an export that has no head yet.

    Raises:
        ExportError: It cannot be used, or its batch size is fixed.
    """
    spec = replace(spec, name=request.model_options.model_name or spec.name)
    try:
        loaded = load_onnx(path, spec=spec)
    except (ExportError, OutputError, PluginError):
        raise
    except FoOnnxError as err:
        raise ExportError(f"the exported file cannot be used: {err}") from err
    # Inputs of text have no dtype and no shape here.
    fixed = [str(i) for i in graph_inputs(loaded.proto) if i.dtype and i.shape[:1] != (None,)]
    if fixed:
        raise ExportError(
            f"the export of {spec.name} has a fixed batch size ({'; '.join(fixed)}); its code depends on the batch's size."
        )
    return loaded


def _with_head(exported: LoadedOnnx, request: RunRequest, reference: Reference) -> LoadedOnnx:
    if request.output.output_transform is not None:
        return exported
    return add_head(exported, with_output_kind(exported.model.spec, reference.raw, request.output, exported.proto))


def _compare(
    exported: LoadedOnnx, request: RunRequest, reference: Reference, origin: str, route_nan: bool
) -> VerifiedExport:
    """Add the head, open the sessions of the run, and compare them with the original."""
    loaded = _with_head(exported, request, reference)
    candidates = placements(request.run.device, request.run.precision, available_providers())
    opened = open_onnx_runners(loaded, request, candidates)
    runners: tuple[Runner, ...] = opened.runners
    if route_nan:
        runners = route_nan_rows(opened.runners, reference.model, opened.spec, request.output)
    transform = request.output.output_transform
    try:
        parity = measure(
            reference.model,
            runners[0],
            request.example,
            batch_size=opened.plan.batch_size,
            tolerance=request.model_options.tolerance,
            transform=None if transform is None else lambda out: apply_transform(transform, out, len(out)),
            # What was run already is not run again.
            known=reference.raw if opened.plan.batch_size == reference.plan.batch_size else None,
        )
    except BaseException:
        opened.close()
        raise
    return VerifiedExport(loaded, opened, runners, parity, origin)


def _at_least_two(array: Array) -> Array:
    return array if len(array) >= 2 else np.repeat(array, 2, axis=0)
