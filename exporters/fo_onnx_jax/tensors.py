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
        """Whether it is an array of JAX."""
        return isinstance(value, jax.Array)

    def array(self, value: Any) -> NDArray[Any]:
        """An array of JAX, or anything else that numpy understands, as a numpy array."""
        return to_array(value)

    def tensor(self, array: NDArray[Any], like: Any = None) -> jax.Array:
        """A numpy array as one of JAX, on the device of `like` where that is on one."""
        there = like.devices() if self.is_tensor(like) and not isinstance(like, jax.core.Tracer) else ()
        # A copy, always: on the CPU it would share memory that may be written to.
        found: jax.Array = jax.device_put(np.array(array), next(iter(there)) if len(there) == 1 else None)
        return found

    def rows(self, array: NDArray[Any]) -> list[jax.Array]:
        """The rows."""
        return list(jax.numpy.asarray(array))

    def moved(self, tensor: jax.Array, device: str) -> jax.Array:
        """An array on a device. Raises `DeviceError`."""
        found: jax.Array = jax.device_put(tensor, place(device, ()).weights)
        return found

    def parameters(self, model: Any) -> Iterator[tuple[str, jax.Array]]:
        """Copies of the arrays of a model that is a pytree (equinox, nnx), by their paths joined by dots."""
        for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
            if self.is_tensor(leaf):
                yield ".".join(map(_step, path)), jax.numpy.array(leaf)


def collated(items: Sequence[Any]) -> Any:
    """Samples as one batch: arrays and numbers stacked along a first axis, through nested dicts, lists and tuples."""
    first = items[0]
    if isinstance(first, dict):
        return {k: collated([item[k] for item in items]) for k in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*map(collated, zip(*items, strict=True)))
    if isinstance(first, tuple):
        return tuple(map(collated, zip(*items, strict=True)))
    if isinstance(first, str):
        return list(items)
    return jax.numpy.asarray(np.stack([to_array(item) for item in items]))


def register_as_tree(kind: type[dict[Any, Any]]) -> None:
    """Lets JAX see a kind of dict as it sees a dict; what it makes of one is a plain dict."""
    jax.tree_util.register_pytree_node(
        kind, lambda d: (list(d.values()), tuple(d)), lambda keys, values: dict(zip(keys, values, strict=True))
    )


def _step(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))).strip(".")
