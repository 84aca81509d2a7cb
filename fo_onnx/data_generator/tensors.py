"""The framework's tensors as arrays and back: what each of the guide's modules brings, and numpy's version of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..distributions import Distributions
from ..errors import DataError
from ..sources.nested import as_array
from ..store import load
from .arguments import rewrite_errors


class Tensors(Protocol):
    """Converts between a framework's tensors and numpy arrays."""

    def is_tensor(self, value: Any) -> bool:
        """Return whether a value is a tensor of this framework."""

    def array(self, value: Any) -> NDArray[Any]:
        """Return a tensor, or anything else that numpy understands, as an array."""

    def tensor(self, array: NDArray[Any], like: Any = None) -> Any:
        """Return an array as a tensor that may be written to; on the device of the tensor `like`, if that is one."""

    def moved(self, tensor: Any, device: str) -> Any:
        """Return a tensor on a device. Raises `DeviceError` if the device is not there."""

    def parameters(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Return copies of a model's parameters by name, as far as it holds any."""


class NumpyTensors:
    """numpy arrays, on the CPU."""

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, np.ndarray)

    def array(self, value: Any) -> NDArray[Any]:
        return as_array(value)

    def tensor(self, array: NDArray[Any], like: Any = None) -> NDArray[Any]:
        return array if array.flags.writeable else array.copy()

    def moved(self, tensor: Any, device: str) -> Any:
        return tensor

    def parameters(self, model: Any) -> Iterator[tuple[str, Any]]:
        return iter(())


def to_distributions(value: Any, tensors: Tensors) -> Distributions:
    """Return a `Distributions` itself, that of a file, or that of a dict from position to row: lists, arrays or `tensors`.

    Raises:
        DataError: Rows of unequal length, or rows that are no numbers.
        OutputError: A row is no distribution.
        StoreError: The file cannot be read.
    """
    if isinstance(value, Distributions):
        return value
    if isinstance(value, str | os.PathLike):
        with rewrite_errors():
            return load(cast(Any, value))
    if not isinstance(value, Mapping):
        raise DataError(
            f"distributions= is a {type(value).__name__}; a dict from position to row, a Distributions or a file's path was "
            "expected."
        )
    if not value:
        raise DataError("distributions= is an empty dict, so that there are no rows.")
    # Rows one by one, so that the one at fault can be named.
    rows: list[NDArray[np.float32]] = []
    for i, row in value.items():
        try:
            rows.append(np.asarray(row if isinstance(row, list) else tensors.array(row), np.float32))
        except (TypeError, ValueError) as err:
            raise DataError(
                f"distributions: the row of {i!r} is no array of numbers; one probability per class was expected."
            ) from err
        if rows[-1].shape != rows[0].shape or rows[-1].ndim != 1:
            raise DataError(
                f"distributions: the row of {i!r} has the shape {rows[-1].shape} where the first has {rows[0].shape}; one "
                "probability per class, shape (classes,), was expected."
            )
    return Distributions(np.stack(rows), ids=list(value))
