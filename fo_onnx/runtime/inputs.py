"""Arrays of a source become inputs of a model: by name or by position, checked against its shapes and dtypes.

Only casts that keep a number's kind are made (float64 to float32, int32 to int64). Everything else is an error, since
the framework would refuse it too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs
from ..contracts.spec import ModelSpec, TensorSpec
from ..errors import DataError, RunError

CHANNELS = (1, 3, 4)


class RowShapeError(DataError):
    """Rows have another shape than the file takes; the model itself may take it: sequences of another length."""


class InputBinder:
    """Maps batches to the inputs of one model. The names are matched on the first batch."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._names: dict[str, str] = {}

    def bind(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """Return the arrays by the model's input names, contiguous and of its dtypes.

        Raises:
            DataError: An input is missing or unknown, or its rank, shape or dtype does not fit.
        """
        if self._names.keys() != inputs.keys():
            self._names = self._match(inputs)
        return {
            t.name: _fit(inputs[source], t, self._spec.name)
            for t, source in zip(self._spec.inputs, self._names.values(), strict=True)
        }

    def _match(self, inputs: Inputs) -> dict[str, str]:
        model_names, names = [t.name for t in self._spec.inputs], list(inputs)
        if set(model_names) <= set(names):
            return {n: n for n in model_names}
        if len(model_names) == len(names) and (all(n.split(".")[0].isdecimal() for n in names) or len(names) == 1):
            return dict(zip(names, names, strict=True))
        raise DataError(
            f"binding data to {self._spec.name}: the model takes {len(model_names)} input(s), {', '.join(map(str, self._spec.inputs))}; "
            f"the data has {len(names)}, {', '.join(map(repr, names))}. Name or count them alike, or say which part of a "
            "sample is the input with input_getter=."
        )


def _fit(array: NDArray[Any], tensor: TensorSpec, model: str) -> NDArray[Any]:
    shape = tensor.shape
    if array.ndim == 1 and len(shape) == 2 and shape[1] == 1:
        # A column of a table.
        array = array[:, None]
    if shape and (
        array.ndim != len(shape)
        or any(d is not None and d != s for d, s in zip(shape[1:], array.shape[1:], strict=True))
    ):
        error = RowShapeError if array.ndim == len(shape) else DataError
        raise error(f"binding data to {model}: {_shape_problem(array, tensor)}")
    wanted = np.dtype(tensor.dtype)
    if array.dtype == wanted:
        return np.ascontiguousarray(array)
    if wanted.kind == "U" and array.dtype.kind == "O":
        return _require_text(array, tensor, model)
    if array.dtype.kind != wanted.kind and not (array.dtype.kind in "iub" and wanted.kind in "iu"):
        raise DataError(
            f"binding data to {model}: the rows are {array.dtype}, and its input {tensor} takes {wanted}. Convert them, for "
            f"example with transform=lambda x: np.asarray(x, {str(wanted)!r}), scaled as the model was trained."
        )
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array, dtype=wanted)
    if wanted.kind in "iuf" and not np.can_cast(array.dtype, wanted):
        # A float may lose digits, and not become infinite.
        lossy = np.isinf(cast) & ~np.isinf(array) if wanted.kind == "f" else cast != array
        if lossy.any():
            raise DataError(
                f"binding data to {model}: {array.dtype} values do not fit into its input {tensor}, {array[lossy][0]} for one. "
                "Scale them as the model was trained."
            )
    return cast


def _require_text(array: NDArray[Any], tensor: TensorSpec, model: str) -> NDArray[Any]:
    """Return an array of objects if each is text; what is none is the fault of its row."""
    for value in array.flat:
        if not isinstance(value, str):
            raise RunError(f"running {model}: its input {tensor} takes text, and {value!r} is none.")
    return np.ascontiguousarray(array)


def _shape_problem(array: NDArray[Any], tensor: TensorSpec) -> str:
    rows, wanted = tuple(array.shape[1:]), tensor.shape[1:]
    text = f"rows have shape {rows}, and its input {tensor} takes rows of shape ({', '.join('?' if d is None else str(d) for d in wanted)})"
    if len(rows) == 3 == len(wanted) and (advice := advise_transpose(rows, wanted)):
        return f"{text}. {advice}"
    if len(rows) == len(wanted) - 1:
        return f"{text}: an axis is missing (a channel axis, or the batch axis of a single sample)."
    return f"{text}. Reshape the data, or export the model for such rows."


def advise_transpose(row: tuple[int, ...], wanted: tuple[int | None, ...] | None = None) -> str | None:
    """Return how to move the channels of images if that is what they lack, else ``None``.

    Args:
        row: The shape of a row, three axes.
        wanted: The shape that the model takes; ``None`` if it refuses the rows and does not say which it takes.
    """
    for order, place, axis, other, other_place, axes in (
        ("NHWC", "last", 2, "NCHW", "first", (2, 0, 1)),
        ("NCHW", "first", 0, "NHWC", "last", (1, 2, 0)),
    ):
        cure = f"transform=lambda x: x.transpose({', '.join(map(str, axes))})"
        if wanted is not None and all(d is None or d == row[a] for d, a in zip(wanted, axes, strict=True)):
            return f"The data looks like {order} (channels {place}) where the model takes {other}: transpose it, for example with {cure}."
        if wanted is None and row[axis] in CHANNELS and row[2 - axis] not in CHANNELS:
            return (
                f"They look like images with their channels {place}, {order}. If the model takes them {other_place}, transpose "
                f"them with {cure}; if not, check their dtype."
            )
    return None
