"""JAX arrays for the generators of the guide: to and from numpy, devices, parameters, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from .devices import place
from .sources import to_array


class JaxTensors:
    """JAX arrays; see `fo_onnx.data_generator.tensors.Tensors`."""

    def is_tensor(self, value: Any) -> bool:
        """Return whether a value is an array of JAX."""
        return isinstance(value, jax.Array)

    def array(self, value: Any) -> NDArray[Any]:
        """Return an array of JAX, or anything else that numpy understands, as a numpy array."""
        return to_array(value)

    def tensor(self, array: NDArray[Any], like: Any = None) -> jax.Array:
        """Return a numpy array as one of JAX, on the device of `like` if that is on one."""
        devices = like.devices() if self.is_tensor(like) and not isinstance(like, jax.core.Tracer) else ()
        # A copy, always: on the CPU it would share memory that may be written to.
        tensor: jax.Array = jax.device_put(np.array(array), next(iter(devices)) if len(devices) == 1 else None)
        return tensor

    def moved(self, tensor: jax.Array, device: str) -> jax.Array:
        """Return an array on a device. Raises `DeviceError`."""
        moved: jax.Array = jax.device_put(tensor, place(device, ()).weights)
        return moved

    def parameters(self, model: Any) -> Iterator[tuple[str, jax.Array]]:
        """Yield copies of the arrays of a model that is a pytree (equinox, nnx), by their paths joined by dots."""
        for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
            if self.is_tensor(leaf):
                yield ".".join(map(_key_name, path)), jax.numpy.array(leaf)


def collate(items: Sequence[Any]) -> Any:
    """Return samples as one batch: arrays and numbers stacked along a first axis, through nested dicts, lists and tuples."""

    def stack(*leaves: Any) -> Any:
        if isinstance(leaves[0], str):
            return list(leaves)
        return jax.numpy.asarray(np.stack([to_array(leaf) for leaf in leaves]))

    # A list is an array, as numpy has it.
    return jax.tree.map(stack, *items, is_leaf=lambda value: not isinstance(value, dict | tuple))


def _key_name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))).strip(".")
