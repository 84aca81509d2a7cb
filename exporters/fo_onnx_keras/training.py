"""Samples beside their distributions as ``tf.data`` pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fo_onnx.errors import DataError
from fo_onnx.sources.arrays import is_arrays

from .pipelines import samples_of

Dataset = tf.data.Dataset


def samples(data: Any) -> tuple[Any, int]:
    """The samples of a dataset as a ``tf.data`` pipeline of one sample each, and their number.

    Args:
        data: A ``tf.data.Dataset``, batched or not; arrays (n, …), alone or in a tuple or dict; or anything with ``__len__``
            and ``__getitem__`` whose samples are alike in structure, shape and dtype.

    Raises:
        DataError: A pipeline gives its rows in a random order, so that distributions could not be matched with them.
    """
    if isinstance(data, tf.data.Dataset):
        found, count = samples_of(data)
        return found, int(found.reduce(np.int64(0), lambda n, _: n + 1)) if count is None else count
    if isinstance(data, tf.Tensor) or is_arrays(data):
        found = tf.data.Dataset.from_tensor_slices(data)
        return found, int(found.cardinality())
    if not hasattr(type(data), "__getitem__"):
        raise DataError(
            f"samples cannot be taken by position from a {type(data).__name__}: a dataset with __len__ and __getitem__ was "
            "expected. Of a loader give its dataset."
        )
    spec = tf.nest.map_structure(lambda leaf: tf.type_spec_from_value(tf.convert_to_tensor(leaf)), data[0])

    def one_by_one() -> Any:
        return (data[i] for i in range(len(data)))

    return tf.data.Dataset.from_generator(one_by_one, output_signature=spec), len(data)


def beside(
    found: Any,
    rows: NDArray[np.float32],
    input_getter: Callable[[Any], Any] | None,
    numbers: NDArray[np.int64] | None = None,
) -> Any:
    """Each sample of a pipeline with its row (k,): (input, label, row), or (input, row) where samples are no tuples.

    Args:
        found: The samples, in order.
        rows: (n, k), one per sample.
        input_getter: Takes a sample, as tensors, and returns its input.
        numbers: (n, 2) what the label of each sample may be where it is one integer, −1 for any; another one ends the
            pipeline with TensorFlow's ``InvalidArgumentError``, since it is read within TensorFlow.
    """
    if numbers is None:
        numbers = np.full((len(rows), 2), -1, np.int64)

    def joined(*parts: Any) -> tuple[Any, ...]:
        *sample, row, allowed = parts
        whole = sample[0] if len(sample) == 1 else tuple(sample)
        apart = isinstance(whole, tuple) and len(whole) >= 2
        plain = whole[0] if isinstance(whole, tuple) else whole
        first = plain if input_getter is None else input_getter(whole)
        if apart:
            _require_label(whole[1], allowed)
        return (first, whole[1], row) if apart else (first, row)

    known = (tf.data.Dataset.from_tensor_slices(part) for part in (rows, numbers))
    return tf.data.Dataset.zip((found, *known)).map(joined)


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


def batches(found: Any, count: int, *, batch_size: int, shuffle: bool) -> Any:
    """Batches of a pipeline, read ahead.

    Args:
        found: The samples.
        count: Their number.
        batch_size: Samples per batch.
        shuffle: Whether the order is another random one each time.
    """
    found = found.apply(tf.data.experimental.assert_cardinality(count))
    if shuffle and count:
        found = found.shuffle(count)
    return found.batch(batch_size).prefetch(tf.data.AUTOTUNE)
