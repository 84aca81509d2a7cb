"""The framework's tensors as arrays and back: what each of the guide's modules brings, and numpy's version of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..distributions import Distributions
from ..errors import DataError
from ..sources.nested import as_array
from ..store import load
from .arguments import Arguments, lacking


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


def map_tensors(value: Any, tensors: Tensors, change: Callable[[Any], Any]) -> Any:
    """Return `value` with every tensor in it changed, through nested dicts, lists and tuples; a mapping becomes a dict."""
    if tensors.is_tensor(value):
        return change(value)
    if isinstance(value, Mapping):
        return {k: map_tensors(v, tensors, change) for k, v in value.items()}
    # A named tuple takes its parts one by one.
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(v, tensors, change) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(v, tensors, change) for v in value)
    return value


def to_distributions(value: Any, tensors: Tensors) -> Distributions:
    """Return what a caller calls distributions as a `Distributions`.

    Args:
        value: A `Distributions`, the path of a file of them, or a dict from position to row: lists, arrays, or tensors of
            the framework.
        tensors: The framework's.

    Raises:
        DataError: Rows of unequal length, or rows that are no numbers.
        OutputError: A row is no distribution.
        StoreError: The file cannot be read.
    """
    if isinstance(value, Distributions):
        return value
    if isinstance(value, str | os.PathLike):
        with Arguments({}, lacking()).in_errors():
            return load(cast(Any, value))
    if not isinstance(value, Mapping):
        raise DataError(
            f"distributions= is a {type(value).__name__}; a dict from position to row, a Distributions or a file's path was "
            "expected."
        )
    if not value:
        raise DataError("distributions= is an empty dict, so that there are no rows.")
    # Rows one by one, so that the one at fault can be named.
    rows = {i: _to_row(row, i, tensors) for i, row in value.items()}
    first = next(iter(rows.values()))
    for i, row in rows.items():
        if row.shape != first.shape or row.ndim != 1:
            raise DataError(
                f"distributions: the row of {i!r} has the shape {row.shape} where the first has {first.shape}; one "
                "probability per class, shape (classes,), was expected."
            )
    return Distributions(np.stack(list(rows.values())), ids=list(rows))


def _to_row(value: Any, position: Any, tensors: Tensors) -> NDArray[np.float32]:
    try:
        return np.asarray(value if isinstance(value, list) else tensors.array(value), np.float32)
    except (TypeError, ValueError) as err:
        raise DataError(
            f"distributions: the row of {position!r} is no array of numbers; one probability per class was expected."
        ) from err
