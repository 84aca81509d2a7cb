"""The guide's TensorFlow module: Keras models and TensorFlow's functions, ``tf.data`` pipelines, TensorFlow rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fo_onnx_keras import training
from fo_onnx_keras.tensors import TensorFlowTensors
from numpy.typing import NDArray

from ..distributions import Distributions
from . import evaluating, generator
from .agreement import Agreement
from .pairing import by_position, labels_in_memory, row_of
from .rows import distributions_of

__all__ = ["FirstOrderDataGenerator", "FirstOrderDataset", "TensorFlowDataGenerator", "output_dataloader"]


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """Gives TensorFlow rows, for Keras models, ``tf.function``, ``tf.Module`` and callables over tensors; see the base class."""

    tensors = TensorFlowTensors()
    framework = "keras"


class TensorFlowDataGenerator(evaluating.DataGenerator):
    """A model and its ``tf.data`` pipeline; `generate` says how the one does on the other; see the base class.

    A dataset that is batched already is not batched again. A model that was made in the scope of a ``tf.distribute`` strategy
    runs on the strategy's replicas where it runs natively and no device is given.
    """

    generator = FirstOrderDataGenerator
    framework = "tensorflow"


def FirstOrderDataset(  # noqa: N802  (the name that the other modules have it under)
    base_dataset: Any, distributions: Any, input_getter: Callable[[Any], Any] | None = None
) -> training.Dataset:
    """A ``tf.data`` pipeline of single samples: (input, label, row), or (input, row) where samples are no tuples.

    Args:
        base_dataset: A ``tf.data.Dataset``, batched or not; arrays; or anything with ``__len__`` and ``__getitem__``.
        distributions: A dict from index to row, a `Distributions`, or the path of a file of them.
        input_getter: Takes a sample, as tensors, and returns its input.

    Raises:
        KeyError: A sample has no distribution; names it.
        DataError: The pipeline gives its rows in a random order.
    """
    return _paired(base_dataset, distributions, input_getter)[0]


def output_dataloader(
    base_dataset: Any,
    distributions: Any,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    input_getter: Callable[[Any], Any] | None = None,
) -> training.Dataset:
    """A ``tf.data`` pipeline of batches: (inputs, labels, distributions), or (inputs, distributions) without labels.

    Args:
        base_dataset: A ``tf.data.Dataset``, batched or not; arrays; or anything with ``__len__`` and ``__getitem__``.
        distributions: A dict from index to row, a `Distributions`, or the path of a file of them.
        batch_size: Samples per batch.
        shuffle: Whether the order is another random one each time.
        num_workers: Without effect here; TensorFlow reads ahead by itself.
        pin_memory: Likewise.
        input_getter: Takes a sample, as tensors, and returns its input.
    """
    found, count = _paired(base_dataset, distributions, input_getter)
    return training.batches(found, count, batch_size=batch_size, shuffle=shuffle)


def _paired(
    base_dataset: Any, distributions: Any, input_getter: Callable[[Any], Any] | None
) -> tuple[training.Dataset, int]:
    found, count = training.samples(base_dataset)
    known = distributions_of(distributions, TensorFlowTensors())
    agreement = Agreement(known, base_dataset, count)
    if isinstance(base_dataset, list | tuple):
        labels = labels_in_memory(by_position(base_dataset), (tuple,))
        if labels is not None:
            agreement.require_all(labels)
    return training.beside(found, _aligned(known, count), input_getter, agreement.numbers()), count


def _aligned(known: Distributions, count: int) -> NDArray[np.float32]:
    """The rows (n, k) of the samples 0 … n − 1."""
    if known.id_kind == "int" and len(known) >= count and np.array_equal(known.ids[:count], np.arange(count)):
        return known.probs[:count]
    return np.stack([row_of(known, i) for i in range(count)])
