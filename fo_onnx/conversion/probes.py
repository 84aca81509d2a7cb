"""Synthetic rows, made from real ones, at which an exported model may differ though it agrees on ordinary rows.

`hazards.py` lists the operators and the values. Where the original refuses an index at an input, the graph gets a guard;
where it differs otherwise, the export is not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..contracts.batch import Array, Inputs, first_row
from ..contracts.runner import RawModel, Runner
from ..errors import RunError
from ..models.index_guard import IndexRange, find_tables, guard_indices
from ..models.onnx_model import LoadedOnnx
from .batch_effects import Floats, row_distances
from .hazards import find_hazards

LEAST_TOLERANCE = 1e-2
"""Synthetic rows lie far from those that a model was made for, where rounding counts for more; a hazard counts for much."""
Run = Callable[[Inputs], Floats]


def guard_export(loaded: LoadedOnnx, original: RawModel, inputs: Inputs) -> LoadedOnnx:
    """Guard the inputs whose values are indices of a table, where the original refuses those outside of it.

    Args:
        loaded: The exported file, without a head; its graph is changed.
        original: The model that it was exported from.
        inputs: Rows that the original takes.
    """
    names = dict(zip((tensor.name for tensor in loaded.model.spec.inputs), inputs, strict=False))
    ranges = []
    for name, length in find_tables(loaded.proto).items():
        key = name if name in inputs else names.get(name)
        if key is None or inputs[key].dtype.kind not in "iu" or inputs[key][:1].size == 0:
            continue

        least = 0 if _refuses(original, _with_index(inputs, key, -1)) else -length
        if _refuses(original, _with_index(inputs, key, length)):
            ranges.append(IndexRange(name, least, length - 1))
    if not ranges:
        return loaded
    guard_indices(loaded.proto, loaded.model.spec.output.name, ranges)
    return replace(loaded, is_edited=True)


def find_difference(loaded: LoadedOnnx, original: Run, runner: Runner, inputs: Inputs, tolerance: float) -> str | None:
    """Return in one sentence at which synthetic row the exported model differs, and why; ``None`` if it does nowhere.

    Args:
        loaded: The exported file.
        original: Runs the original.
        runner: Runs the file, on its own.
        inputs: Rows that the original takes.
        tolerance: The largest total variation that counts as the same; at least 1e-2 is allowed here.
    """
    for hazard in find_hazards(loaded.proto):
        for what, row in _make_rows(hazard.values, inputs):
            expected = _run_row(original, row)
            probs = _run_row(lambda batch: runner.run(batch).probs.astype(np.float64), row)
            if probs is None:
                # A row without a distribution is a bad one, or the original's to answer: nothing wrong comes of it.
                continue
            where = f"on a synthetic row, {what}, the exported model"
            if expected is None:
                return f"{where} gives a distribution where the original gives none: {hazard.reason}"
            distance = float(row_distances(expected, probs)[0])
            if distance > max(tolerance, LEAST_TOLERANCE):
                return f"{where} differs from the original by a total variation of {distance:.2e}: {hazard.reason}"
    return None


def _refuses(original: RawModel, row: Inputs) -> bool:
    try:
        return bool(np.isnan(original.forward(row)).any())
    except RunError:
        return True


def _run_row(run: Run, row: Inputs) -> Floats | None:
    """Return what is given for one row; ``None`` if it is refused, or no distribution."""
    try:
        probs = run(row)
    except RunError:
        return None
    return probs if np.isfinite(probs).all() else None


def _make_rows(values: str, inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """Yield synthetic rows of a kind, each with its description."""
    if values == "indices":
        for name, array in inputs.items():
            if array.dtype.kind == "i" and array[:1].size:
                yield f"-1 in {name!r}", _with_index(inputs, name, -1)
                past = int(array.max()) + 1
                if past <= np.iinfo(array.dtype).max:
                    yield f"{past} in {name!r}", _with_index(inputs, name, past)
    elif values == "masks":
        for name, array in inputs.items():
            if array.dtype.kind in "biuf" and array.size and np.isin(array, (0, 1)).all():
                yield f"zeros in {name!r}", {**first_row(inputs), name: np.zeros_like(array[:1])}
    elif values == "extremes":
        yield "the least value of each column", _map_numbers(inputs, lambda array: array.min(axis=0, keepdims=True))
        yield "the largest value of each column", _map_numbers(inputs, lambda array: array.max(axis=0, keepdims=True))
    else:
        yield "zeros", _map_numbers(inputs, lambda array: np.zeros_like(array[:1]))
        if values == "ties":
            yield "ones", _map_numbers(inputs, lambda array: np.ones_like(array[:1]))


def _map_numbers(inputs: Inputs, function: Callable[[Array], Array]) -> Inputs:
    """Return one row of which numbers are changed; text stays that of the first row."""
    return {n: function(a) if a.dtype.kind in "biuf" and a.size else a[:1] for n, a in inputs.items()}


def _with_index(inputs: Inputs, name: str, index: int) -> Inputs:
    row = inputs[name][:1].copy()
    row.reshape(-1)[-1] = index
    return {**first_row(inputs), name: row}
