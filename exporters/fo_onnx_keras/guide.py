"""TensorFlow in the generators of the guide: its tensors, and ``tf.data`` pipelines of samples with their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from fo_onnx.contracts.batch import Array
from fo_onnx.errors import DataError
from fo_onnx.sources.arrays import is_arrays

from .detect import layers_of
from .devices import tf_device
from .pipelines import samples_of
from .sources import to_array

Dataset = tf.data.Dataset


class TensorFlowTensors:
    """TensorFlow's tensors and variables; see `fo_onnx.data_generator.tensors.Tensors`."""

    def is_tensor(self, value: Any) -> bool:
        """Return whether a value is a tensor or a variable of TensorFlow."""
        return isinstance(value, tf.Tensor | tf.Variable)

    def array(self, value: Any) -> Array:
        """Return a tensor, or anything else that numpy understands, as an array."""
        return to_array(value)

    def tensor(self, array: Array, like: Any = None) -> Any:
        """Return an array as a tensor, on the device of `like` if that is a tensor."""
        with tf.device(like.device if self.is_tensor(like) else "/CPU:0"):
            return tf.identity(array)

    def moved(self, tensor: Any, device: str) -> Any:
        """Return a tensor on a device. Raises `DeviceError`."""
        with tf.device(tf_device(device)):
            return tf.identity(tensor)

    def parameters(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Yield copies of the weights of a Keras model or a ``tf.Module`` by name, its parts joined by dots."""
        layers = layers_of(model)[:1]
        for weight in layers[0].weights if layers else getattr(model, "variables", ()):
            name = getattr(weight, "path", weight.name).removesuffix(":0").replace("/", ".")
            yield name, tf.identity(getattr(weight, "value", weight))


def samples(data: Any) -> tuple[Any, int]:
    """Return the samples of a dataset as a ``tf.data`` pipeline of one sample each, and their number.

    Args:
        data: A ``tf.data.Dataset``, batched or not; arrays (n, …), alone or in a tuple or dict; or anything with
            ``__len__`` and ``__getitem__`` whose samples are alike in structure, shape and dtype.

    Raises:
        DataError: A pipeline gives its rows in a random order, so that distributions could not be matched with them.
    """
    if isinstance(data, tf.data.Dataset):
        pipeline, count = samples_of(data)
        return pipeline, int(pipeline.reduce(np.int64(0), lambda n, _: n + 1)) if count is None else count
    if isinstance(data, tf.Tensor) or is_arrays(data):
        pipeline = tf.data.Dataset.from_tensor_slices(data)
        return pipeline, int(pipeline.cardinality())
    if not hasattr(type(data), "__getitem__"):
        raise DataError(
            f"samples cannot be taken by position from a {type(data).__name__}: a dataset with __len__ and __getitem__ was "
            "expected. Of a loader give its dataset."
        )
    # The first sample says what all look like, which TensorFlow asks before it reads any.
    spec = tf.nest.map_structure(lambda leaf: tf.type_spec_from_value(tf.convert_to_tensor(leaf)), data[0])

    def one_by_one() -> Any:
        return (data[i] for i in range(len(data)))

    return tf.data.Dataset.from_generator(one_by_one, output_signature=spec), len(data)


def join_rows(pipeline: Any, rows: Array, input_getter: Callable[[Any], Any] | None, numbers: Array | None) -> Any:
    """Return each sample of a pipeline with its row (k,): (input, label, row), or (input, row) without labels.

    Args:
        pipeline: The samples, in order.
        rows: (n, k) float32, one per sample.
        input_getter: Takes a sample, as tensors, and returns its input.
        numbers: (n, 2) int64, what the label of each sample may be if it is one integer, −1 for any; another one ends
            the pipeline with TensorFlow's ``InvalidArgumentError``, since it is read within TensorFlow.
    """
    if numbers is None:
        numbers = np.full((len(rows), 2), -1, np.int64)

    def join(*parts: Any) -> tuple[Any, ...]:
        *elements, row, allowed = parts
        sample = elements[0] if len(elements) == 1 else tuple(elements)
        has_label = isinstance(sample, tuple) and len(sample) >= 2
        plain = sample[0] if isinstance(sample, tuple) else sample
        value = plain if input_getter is None else input_getter(sample)
        if has_label:
            _require_label(sample[1], allowed)
        return (value, sample[1], row) if has_label else (value, row)

    # Zipped within TensorFlow, which reads ahead; a wrong label then ends the pipeline.
    parts = (tf.data.Dataset.from_tensor_slices(part) for part in (rows, numbers))
    return tf.data.Dataset.zip((pipeline, *parts)).map(join)


def batches(pipeline: Any, count: int, *, batch_size: int, shuffle: bool) -> Any:
    """Return batches of a pipeline of `count` samples, read ahead; with `shuffle` in another random order each time."""
    # Batches of an unknown number would have no length.
    pipeline = pipeline.apply(tf.data.experimental.assert_cardinality(count))
    if shuffle and count:
        pipeline = pipeline.shuffle(count)
    return pipeline.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _require_label(label: Any, allowed: Any) -> None:
    if not isinstance(label, tf.Tensor) or not label.dtype.is_integer or label.shape.num_elements() != 1:
        return
    number = tf.cast(tf.reshape(label, []), tf.int64)
    tf.debugging.Assert(
        tf.reduce_any((allowed == number) | (allowed < 0)),
        [
            "a sample has another label than its row in the file, so that they are of another dataset:",
            number,
            allowed[0],
        ],
    )
