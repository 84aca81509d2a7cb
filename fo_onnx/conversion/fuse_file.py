"""A file of which there is no original gets fused nodes if they give the same rows as the file itself."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ..contracts.batch import cut_inputs, pad_rows
from ..errors import FoOnnxError
from ..fusions.fused_graph import fuse_graph
from ..models.onnx_model import LoadedOnnx
from ..runtime.devices import Placement, cpu_cores
from ..runtime.open_runners import open_onnx_runners
from ..runtime.request import RunRequest
from .batch_effects import Floats, row_distances

log = logging.getLogger("fo_onnx.engine")
COMPARED_ROWS = 8
"""A fusion means the same by its construction; a few rows show a kernel or a form of graph that was not thought of."""


def fuse_if_same(loaded: LoadedOnnx, request: RunRequest, candidates: list[Placement]) -> LoadedOnnx:
    """Return a file with its fused graph, if it has one that gives the same for the first rows, else the file as it is.

    Args:
        loaded: The file, with its head; without one if an ``output_transform`` takes the head's place.
        request: The rows, and the tolerance.
        candidates: Where it may run. Only on the CPU graphs are fused.
    """
    if all(placement.provider != "CPUExecutionProvider" for placement in candidates):
        return loaded
    graph = fuse_graph(loaded.proto)
    if graph is None:
        return loaded
    fused = replace(loaded, fused=graph)
    try:
        expected, probs = (_run_first_rows(each, request, candidates) for each in (loaded, fused))
        distance = float(row_distances(expected, probs).max(initial=0.0))
        problem = f"its rows differ by a total variation of {distance:.2e}"
    except FoOnnxError as err:
        # A row that the file refuses is named by the run, which is of the file itself then.
        distance, problem = np.inf, str(err)
    if distance <= request.model_options.tolerance:
        return fused
    log.info("%s runs without fused nodes: %s", loaded.model.spec.name, problem)
    return loaded


def _run_first_rows(loaded: LoadedOnnx, request: RunRequest, candidates: list[Placement]) -> Floats:
    """Return the distributions of the first rows (n, k), by one session over all cores."""
    plan = request.plan_batches(model_bytes=loaded.size_bytes, fixed_batch=loaded.model.spec.fixed_batch)
    plan = replace(plan, sessions=1, threads=cpu_cores())
    opened = open_onnx_runners(loaded, replace(request, recorded_plan=plan), candidates)
    try:
        first = next(cut_inputs(request.example, COMPARED_ROWS))
        # One row alone would hide what is of one sample for all of them.
        batch = {name: pad_rows(array, 2) for name, array in first.items()}
        return opened.runners[0].run(batch).probs.astype(np.float64)
    finally:
        opened.close()
