"""What a generator must know of a framework's tensors, and numpy's answer to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..sources.tree import as_array


class Tensors(Protocol):
    """Between a framework's tensors and numpy arrays."""

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor of this framework."""

    def array(self, value: Any) -> NDArray[Any]:
        """A tensor, or anything else that numpy understands, as an array."""

    def tensor(self, array: NDArray[Any], like: Any = None) -> Any:
        """An array as a tensor that may be written to; on the device of the tensor `like`, where that is one."""

    def rows(self, array: NDArray[Any]) -> list[Any]:
        """The rows of an array that nobody else holds, as tensors on the CPU that may be written to."""

    def moved(self, tensor: Any, device: str) -> Any:
        """A tensor on a device.

        Raises:
            DeviceError: The device is not there.
        """

    def parameters(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Copies of a model's parameters by name, as far as it holds any."""


class NumpyTensors:
    """numpy arrays, on the CPU."""

    def is_tensor(self, value: Any) -> bool:
        """Whether it is an array."""
        return isinstance(value, np.ndarray)

    def array(self, value: Any) -> NDArray[Any]:
        """The value as an array."""
        return as_array(value)

    def tensor(self, array: NDArray[Any], like: Any = None) -> NDArray[Any]:
        """The array itself, or a copy where it may not be written to."""
        return array if array.flags.writeable else array.copy()

    def rows(self, array: NDArray[Any]) -> list[Any]:
        """The rows, as views."""
        return list(array)

    def moved(self, tensor: Any, device: str) -> Any:
        """The array itself: it has no device."""
        return tensor

    def parameters(self, model: Any) -> Iterator[tuple[str, Any]]:
        """None: there is no framework to ask."""
        return iter(())


def map_tensors(value: Any, tensors: Tensors, change: Callable[[Any], Any]) -> Any:
    """`value` with every tensor in it changed, through nested dicts, lists and tuples; a mapping becomes a dict."""
    if tensors.is_tensor(value):
        return change(value)
    if isinstance(value, Mapping):
        return {k: map_tensors(v, tensors, change) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(v, tensors, change) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(v, tensors, change) for v in value)
    return value
