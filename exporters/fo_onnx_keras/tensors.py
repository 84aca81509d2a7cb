"""TensorFlow's tensors for the generators of the guide: to and from numpy, devices, parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from .devices import tf_device
from .recognition import held_layers
from .sources import to_array


class TensorFlowTensors:
    """TensorFlow's tensors and variables; see `fo_onnx.data_generator.tensors.Tensors`."""

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a tensor or a variable of TensorFlow."""
        return isinstance(value, tf.Tensor | tf.Variable)

    def array(self, value: Any) -> NDArray[Any]:
        """A tensor, or anything else that numpy understands, as an array."""
        return to_array(value)

    def tensor(self, array: NDArray[Any], like: Any = None) -> Any:
        """An array as a tensor, on the device of `like` where that is a tensor."""
        with tf.device(like.device if self.is_tensor(like) else "/CPU:0"):
            return tf.identity(array)

    def rows(self, array: NDArray[Any]) -> list[Any]:
        """The rows."""
        with tf.device("/CPU:0"):
            return list(tf.unstack(array))

    def moved(self, tensor: Any, device: str) -> Any:
        """A tensor on a device. Raises `DeviceError`."""
        with tf.device(tf_device(device)):
            return tf.identity(tensor)

    def parameters(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Copies of the weights of a Keras model or a ``tf.Module`` by name, its parts joined by dots."""
        layers = held_layers(model)[:1]
        for weight in layers[0].weights if layers else getattr(model, "variables", ()):
            name = getattr(weight, "path", weight.name).removesuffix(":0").replace("/", ".")
            yield name, tf.identity(getattr(weight, "value", weight))
