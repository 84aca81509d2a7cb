"""Runners for ONNX files: they run as they are, and row by row if a row depends on its batch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..contracts.parity_report import ParityReport
from ..control.run_control import current
from ..conversion.batch_effects import FEW_ROWS, measure_batch_effects
from ..conversion.fuse_file import fuse_if_same
from ..conversion.heads import prepare_head
from ..errors import FoOnnxError, ModelError, OptionError, OutputError, warn_at_caller
from ..models.onnx_model import LoadedOnnx, OnnxModel, load_onnx
from ..runtime.devices import Placement, placements
from ..runtime.faster_provider import take_faster_provider
from ..runtime.measured_plan import choose_measured_plan, recall_plan
from ..runtime.open_runners import open_onnx_runners
from ..runtime.opened import OpenedModel
from ..runtime.request import RunRequest
from ..runtime.session import available_providers, seed_random_operators
from ..store import files
from .choose_precision import lower_precision

log = logging.getLogger("fo_onnx.engine")


def open_file(request: RunRequest) -> OpenedModel:
    """Open an ONNX file as it is.

    Raises:
        ModelError: The file has changed since it was opened.
        OptionError: The native runner was asked for, which a file has not.
    """
    return _open_prepared(_prepare_file(request), request)


def choose_for_file(request: RunRequest) -> OpenedModel:
    """Open a file; one whose rows depend on more than their input runs row by row.

    Raises:
        OutputError: Its rows depend on their batch, whose size is built into it.
    """
    with _naming(_path_of(request)):
        loaded = fuse_if_same(_prepare_file(request), request, _placements(request))
    planned = recall_plan(request, loaded, _placements(request))
    opened = _open_prepared(loaded, planned)
    if planned.recorded_plan is not None:
        return _take_fastest(loaded, opened, request)
    if opened.parity is not None and opened.parity.passed:
        return _take_fastest(loaded, choose_measured_plan(opened, loaded, request), request)
    run = opened.runners[0].run
    try:
        effects = measure_batch_effects(
            lambda batch: run(batch).probs.astype(np.float64), request.example, min(opened.plan.batch_size, FEW_ROWS)
        )
    except FoOnnxError:
        # The run names the row that the file refuses.
        return opened
    if effects.dependence is None:
        return _take_fastest(loaded, choose_measured_plan(opened, loaded, request), request)
    opened.close()
    name, fixed, plan = opened.spec.name, opened.spec.fixed_batch, opened.plan
    if fixed is not None and fixed > 1 and not effects.samples:
        raise OutputError(
            f"{name}: {effects.dependence}, and its batches of {fixed} rows are built into it. Export it for batches of any size, or of 1."
        )
    # By one session, random operators give the rows of a run in the same order again.
    plan = replace(
        plan,
        batch_size=fixed or 1,
        sessions=1 if effects.samples else plan.sessions,
        reason="its rows depend on their batch",
    )
    if effects.samples:
        seed_random_operators()
    opened = _open_prepared(loaded, replace(request, recorded_plan=plan))
    warn_at_caller(f"{name} runs row by row: {effects.dependence}")
    return replace(opened, reason=f"row by row: {effects.dependence}")


def _take_fastest(loaded: LoadedOnnx, opened: OpenedModel, request: RunRequest) -> OpenedModel:
    """Return the model by the provider, and in the precision, that its run gets."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(files.temporary_folder()))
        opened = take_faster_provider(opened, loaded, request)
        _, opened = lower_precision(loaded, opened, request, folder)
        opened.resources.push(stack.pop_all())
        return opened


def _prepare_file(request: RunRequest) -> LoadedOnnx:
    """Parse a file and give it the head that is asked for."""
    path = _path_of(request)
    if request.run.runner == "native":
        raise OptionError(f"runner='native' was asked for, but {path} is an ONNX file and has no other runner.")
    loaded = _load_unchanged(request)
    with _naming(path):
        loaded = prepare_head(loaded, request, _placements(request)[-1])
    if request.model_options.model_name is not None:
        loaded = replace(loaded, model=loaded.model.with_spec(name=request.model_options.model_name))
    return loaded


def _open_prepared(loaded: LoadedOnnx, request: RunRequest) -> OpenedModel:
    path = _path_of(request)
    with _naming(path):
        opened = open_onnx_runners(loaded, request, _placements(request))
    return replace(opened, parity=_recorded_parity(loaded.model), path=path)


def _path_of(request: RunRequest) -> Path:
    model = request.model.model if isinstance(request.model, LoadedOnnx) else request.model
    path: Path = model.path
    return path


def _placements(request: RunRequest) -> list[Placement]:
    return placements(request.run.device, request.run.precision, available_providers())


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors that do not."""
    try:
        yield
    except ModelError as err:
        if str(path) in str(err):
            raise
        raise ModelError(f"opening the model {path}: {err}") from err


def _load_unchanged(request: RunRequest) -> LoadedOnnx:
    """Return the parsed file, which must be what it was when the caller opened it."""
    if isinstance(request.model, LoadedOnnx):
        request.model.require_unchanged()
        return request.model
    model = request.model
    with current().calling("reading its file"):
        # Of a foreign file the output has to be named again; ours has but one.
        loaded = load_onnx(model.path, output_name=model.spec.output.name if model.probs_output is None else None)
    if loaded.model.sha256 != model.sha256:
        raise ModelError(f"{model.path} has changed since it was opened; open it again with OnnxModel.open.")
    return replace(loaded, model=model)


def _recorded_parity(model: OnnxModel) -> ParityReport | None:
    """Return the comparison that a file records; a warning is logged if it says nothing of what is run."""
    parity = model.parity
    if parity is not None and parity.unknown is not None:
        log.warning(
            "%s: its parity is unknown, since %s. fo_onnx.verify compares a file anew; fo_onnx.export makes it again.",
            model.path, parity.unknown,
        )  # fmt: skip
    return parity
