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
from ..models.index_guard import IndexRange, guard_indices, table_lengths
from ..models.onnx_model import LoadedOnnx
from ..runtime.original_rows import rows_with_nan
from .batch_effects import Floats, row_distances
from .hazards import CODE, find_hazards

LEAST_TOLERANCE = 1e-2
"""Synthetic rows lie far from those that a model was made for, where rounding counts for more; a hazard counts for much."""
MOST_TABLES = 3
Run = Callable[[Inputs], Floats]


def may_be_probed(original: RawModel, inputs: Inputs) -> bool:
    """Return whether the original may be given synthetic rows.

    An index outside of a table ends a CUDA device for the whole process, so that models on other devices than the CPU are not
    given integers that their rows do not have.
    """
    return original.device.lower().startswith("cpu") or not any(array.dtype.kind in "iu" for array in inputs.values())


def guard_export(loaded: LoadedOnnx, original: RawModel, inputs: Inputs) -> LoadedOnnx:
    """Guard the inputs whose values are indices of a table, if the original refuses those outside of it.

    Args:
        loaded: The exported file, without a head; its graph is changed.
        original: The model that it was exported from.
        inputs: Rows that the original takes.
    """
    if not may_be_probed(original, inputs):
        return loaded
    lengths = table_lengths(loaded.proto)
    names = [tensor.name for tensor in loaded.model.spec.inputs]
    ranges = []
    for key, name in zip(inputs, inputs if set(names) == set(inputs) else names, strict=False):
        limits = _ask_range(original, inputs, key, lengths)
        if limits is not None:
            ranges.append(IndexRange(name, *limits))
    if not ranges:
        return loaded
    guard_indices(loaded.proto, loaded.model.spec.output.name, ranges)
    return replace(loaded, is_edited=True)


def _ask_range(original: RawModel, inputs: Inputs, name: str, lengths: list[int]) -> tuple[int, int] | None:
    """Return the least and the largest index that the original takes at an input; ``None`` if it takes all, or no index."""
    array = inputs[name]
    if array.dtype.kind != "i" or not array[:1].size:
        return None
    type_limits = np.iinfo(array.dtype)

    def refuses(index: int) -> bool:
        if not type_limits.min <= index <= type_limits.max:
            return False
        try:
            return bool(np.isnan(original.forward(_with_index(inputs, name, index))).any())
        except RunError:
            return True

    length = next((n for n in _likely_tables(array, lengths) if refuses(n) and not refuses(n - 1)), None)
    if length is None:
        return None
    # Some take negative indices, which count from the end.
    least = 0 if refuses(-1) else -length if refuses(-length - 1) else int(type_limits.min)
    return least, length - 1


def find_difference(loaded: LoadedOnnx, original: Run, runner: Runner, inputs: Inputs, tolerance: float) -> str | None:
    """Return in one sentence at which synthetic row the exported model differs, and why; ``None`` if it does nowhere.

    Args:
        loaded: The exported file.
        original: Runs the original.
        runner: Runs the file, on its own.
        inputs: Rows that the original takes.
        tolerance: The largest total variation that counts as the same; at least 1e-2 is allowed here.
    """
    # Synthetic rows are made of rows without NaN, which is a value of its own.
    usable = ~rows_with_nan(inputs)
    if not usable.any():
        return None
    inputs = {name: array[usable] for name, array in inputs.items()}
    lengths = table_lengths(loaded.proto)
    for hazard in (*find_hazards(loaded.proto), CODE):
        for what, row in _make_rows(hazard.values, inputs, lengths):
            expected = _run_row(original, row)
            probs = _run_row(lambda batch: runner.run(batch).probs.astype(np.float64), row)
            if probs is None:
                # A row without a distribution is a bad one, or the original's to answer: nothing wrong comes of it.
                continue
            where = f"on a synthetic row, {what}, the exported model"
            if expected is None:
                return f"{where} gives a distribution where the original gives none: {hazard.reason}"
            distance = float(row_distances(expected, probs)[0])
            if distance > max(tolerance, LEAST_TOLERANCE) and hazard is not CODE:
                return f"{where} differs from the original by a total variation of {distance:.2e}: {hazard.reason}"
    return None


def _run_row(run: Run, row: Inputs) -> Floats | None:
    """Return what is given for one row; ``None`` if it is refused, or no distribution."""
    try:
        probs = run(row)
    except RunError:
        return None
    return probs if np.isfinite(probs).all() else None


def _make_rows(values: str, inputs: Inputs, lengths: list[int]) -> Iterator[tuple[str, Inputs]]:
    """Yield synthetic rows of a kind, each with its description; `lengths` are those of the tables that are looked up in."""
    if values == "indices":
        for name, array in inputs.items():
            if array.dtype.kind != "i" or not array[:1].size:
                continue
            # Below 0 and past the end, of the rows' own values and of each table from both ends.
            limits = np.iinfo(array.dtype)
            indices = [-1, int(array.max()) + 1, *(i for n in _likely_tables(array, lengths) for i in (-n - 1, n))]
            for index in dict.fromkeys(i for i in indices if limits.min <= i <= limits.max):
                yield f"{index} in {name!r}", _with_index(inputs, name, index)
    elif values == "masks":
        for name, array in inputs.items():
            if array.dtype.kind in "biuf" and array.size and np.isin(array, (0, 1)).all():
                yield f"zeros in {name!r}", {**first_row(inputs), name: np.zeros_like(array[:1])}
    elif values == "beyond":
        yield "below the least value of each column", _map_numbers(inputs, lambda array: _beyond(array, -1))
        yield "above the largest value of each column", _map_numbers(inputs, lambda array: _beyond(array, 1))
    elif values == "extremes":
        yield "the least value of each column", _map_numbers(inputs, lambda array: array.min(axis=0, keepdims=True))
        yield "the largest value of each column", _map_numbers(inputs, lambda array: array.max(axis=0, keepdims=True))
    else:
        yield "zeros", _map_numbers(inputs, lambda array: np.zeros_like(array[:1]))
        if values == "ties":
            yield "ones", _map_numbers(inputs, lambda array: np.ones_like(array[:1]))


def _likely_tables(array: Array, lengths: list[int]) -> list[int]:
    """Return the lengths of the tables that an input's values may be indices of: the shortest of those that hold them all."""
    return [n for n in lengths if n > int(array.max())][:MOST_TABLES]


def _beyond(array: Array, side: int) -> Array:
    """Return one row that lies outside of the values of each column, by their range and 1; within integers where they end."""
    if array.dtype.kind == "b":
        return array[:1]
    least, largest = (value.astype(np.float64) for value in (array.min(axis=0), array.max(axis=0)))
    end = largest if side > 0 else least
    with np.errstate(invalid="ignore"):
        values = end + side * (largest - least + 1)
    values = np.where(np.isfinite(values), values, end)  # infinity, as in masks, has nothing beyond it
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        values = np.clip(values, max(limits.min, -(2**52)), min(limits.max, 2**52))
    row: Array = values.astype(array.dtype)[np.newaxis]
    return row


def _map_numbers(inputs: Inputs, function: Callable[[Array], Array]) -> Inputs:
    """Return one row of which numbers are changed; text stays that of the first row."""
    return {n: function(a) if a.dtype.kind in "biuf" and a.size else a[:1] for n, a in inputs.items()}


def _with_index(inputs: Inputs, name: str, index: int) -> Inputs:
    row = inputs[name][:1].copy()
    row.reshape(-1)[-1] = index
    return {**first_row(inputs), name: row}
