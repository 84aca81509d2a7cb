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


def beside(found: Any, rows: NDArray[np.float32], input_getter: Callable[[Any], Any] | None) -> Any:
    """Each sample of a pipeline with its row (k,): (input, label, row), or (input, row) where samples are no tuples.

    Args:
        found: The samples, in order.
        rows: (n, k), one per sample.
        input_getter: Takes a sample, as tensors, and returns its input.
    """

    def joined(*parts: Any) -> tuple[Any, ...]:
        *sample, row = parts
        whole = sample[0] if len(sample) == 1 else tuple(sample)
        apart = isinstance(whole, tuple) and len(whole) >= 2
        plain = whole[0] if isinstance(whole, tuple) else whole
        first = plain if input_getter is None else input_getter(whole)
        return (first, whole[1], row) if apart else (first, row)

    return tf.data.Dataset.zip((found, tf.data.Dataset.from_tensor_slices(rows))).map(joined)


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
