"""Sources over TensorFlow's tensors and datasets, and over Keras' indexable batches, whatever model their rows feed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources.arrays import open_arrays
from fo_onnx.sources.iterables import IterableSource
from fo_onnx.sources.nested import as_array, leaves
from fo_onnx.sources.opening import open_builtin

from .detect import keras_module, tensorflow_module


class TensorFlowSources:
    """Opens tensors (also in tuples, lists and dicts), ``tf.data`` datasets and their iterators, and ``PyDataset``."""

    name = "keras"

    def accepts(self, data: Any) -> bool:
        """Return whether `data` is, or holds, a tensor or dataset of either. Import neither."""
        keras, tf = keras_module(), tensorflow_module()
        if keras is not None and isinstance(data, keras.utils.PyDataset):
            return True
        if tf is None:
            return False
        # The first sample stands for a long list.
        sample = data[:1] if isinstance(data, list) else data
        kinds = (tf.Tensor, tf.Variable, tf.RaggedTensor, tf.SparseTensor, tf.data.Dataset, tf.data.Iterator)
        return any(isinstance(leaf, kinds) for leaf in leaves(sample))

    def open(self, data: Any, options: DataOptions) -> Source:
        """Open the rows of `data`.

        Raises:
            DataError: Data that are shuffled, endless, or would lose rows; ragged and sparse tensors.
        """
        keras, tf = keras_module(), tensorflow_module()
        if keras is not None and isinstance(data, keras.utils.PyDataset):
            return _open_batches(data, options)
        if tf is not None and isinstance(data, tf.data.Dataset):
            from .pipelines import open_dataset

            return open_dataset(data, options, to_array)
        if tf is not None and isinstance(data, tf.data.Iterator):
            return IterableSource(data, options, to_array)
        return (open_builtin if isinstance(data, list) else open_arrays)(data, options, to_array)


def to_array(leaf: Any) -> Array:
    """Return a tensor, or anything else that numpy understands, as an array; bfloat16 becomes float32, and bytes text.

    Raises:
        DataError: It is ragged or sparse.
    """
    tf = tensorflow_module()
    if tf is None:
        return as_array(leaf)
    if isinstance(leaf, tf.RaggedTensor):
        raise DataError(
            f"a RaggedTensor of shape {tuple(leaf.shape)} has rows of unequal lengths, and rows of equal shape were expected. Make it "
            "dense with .to_tensor() and give the model its mask or padding value."
        )
    if isinstance(leaf, tf.SparseTensor):
        raise DataError(
            f"a SparseTensor of shape {tuple(leaf.shape)} was found, and a dense one was expected: make it one with "
            "tf.sparse.to_dense."
        )
    if not isinstance(leaf, tf.Tensor | tf.Variable):
        return as_array(leaf)
    from .native import to_numpy

    array: Array = to_numpy(leaf)
    return _as_text(array) if leaf.dtype == tf.string else array


def _as_text(array: Array) -> Array:
    """Return TensorFlow's strings, which are bytes, as text if they are that; encoded images, say, stay bytes."""
    try:
        return np.array([value.decode() for value in array.ravel()], dtype=np.str_).reshape(array.shape)
    except UnicodeDecodeError:
        return array


def _open_batches(data: Any, options: DataOptions) -> Source:
    """Open a ``keras.utils.PyDataset``: batches by position."""
    if getattr(data, "shuffle", False) and options.ids is None:
        raise DataError(
            f"{type(data).__name__} was made with shuffle=True, so that results could not be matched with samples. Make it with "
            "shuffle=False, or give the ids of the rows in its order with ids=."
        )
    count = _batch_count(data)
    if count is None and options.limit is None:
        raise DataError(
            f"{type(data).__name__} says that it has no end (num_batches is None), and every row would be run. Say how many rows to "
            "take with limit=."
        )
    batches = _InOrder(data, count, has_weights=options.input_getter is None)
    return IterableSource(batches, options, to_array, batched=True)


class _InOrder:
    """The batches of a ``PyDataset`` one after another, as often as is asked; without the weights of samples.

    Those are the third of (inputs, targets, sample weights), as `keras.utils.unpack_x_y_sample_weight` describes it.
    """

    def __init__(self, data: Any, count: int | None, *, has_weights: bool) -> None:
        self._data, self._count, self._has_weights = data, count, has_weights

    def __iter__(self) -> Iterator[Any]:
        for i in itertools.count() if self._count is None else range(self._count):
            batch = self._data[i]
            yield batch[:2] if self._has_weights and isinstance(batch, tuple) and len(batch) == 3 else batch


def _batch_count(data: Any) -> int | None:
    try:
        count = getattr(data, "num_batches", None)
    except NotImplementedError:
        # The older protocol, keras.utils.Sequence, has a length only.
        count = len(data)
    return None if count is None else int(count)
