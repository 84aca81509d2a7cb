"""The guide's TensorFlow module: Keras models and TensorFlow's functions, ``tf.data`` pipelines in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fo_onnx_keras import guide
from fo_onnx_keras.guide import TensorFlowTensors

from . import evaluating, generator
from .agreement import Agreement
from .pairing import find_labels, find_row, to_samples
from .tensors import to_distributions

__all__ = ["FirstOrderDataGenerator", "FirstOrderDataset", "TensorFlowDataGenerator", "output_dataloader"]


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """For Keras models, ``tf.function``, ``tf.Module`` and callables over tensors; see the base class."""

    tensors = TensorFlowTensors()
    framework = "keras"


class TensorFlowDataGenerator(evaluating.DataGenerator):
    """A model and its ``tf.data`` pipeline; `generate` says how the one does on the other; see the base class.

    A dataset that is batched already is not batched again. A model that was made in the scope of a ``tf.distribute`` strategy
    runs on the strategy's replicas if it runs natively and no device is given.
    """

    generator = FirstOrderDataGenerator
    framework = "tensorflow"


def FirstOrderDataset(  # noqa: N802  (the name that the other modules have it under)
    base_dataset: Any, distributions: Any, input_getter: Callable[[Any], Any] | None = None
) -> guide.Dataset:
    """Return a ``tf.data`` pipeline of single samples: (input, label, row), or (input, row) if samples are no tuples.

    The dataset is a ``tf.data.Dataset``, batched or not; arrays; or anything with ``__len__`` and ``__getitem__``. `input_getter`
    gets a sample as tensors.

    Raises:
        KeyError: A sample has no distribution; names it.
        DataError: The pipeline gives its rows in a random order, or is not the one that the distributions are of.
    """
    return _pair(base_dataset, distributions, input_getter)[0]


def output_dataloader(
    base_dataset: Any,
    distributions: Any,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    input_getter: Callable[[Any], Any] | None = None,
) -> guide.Dataset:
    """Return a ``tf.data`` pipeline of batches: (inputs, labels, distributions), or (inputs, distributions) without labels.

    The arguments are those of `FirstOrderDataset` and of `pairing.SimpleDataLoader.output_dataloader`.
    """
    samples, count = _pair(base_dataset, distributions, input_getter)
    return guide.batches(samples, count, batch_size=batch_size, shuffle=shuffle)


def _pair(
    base_dataset: Any, distributions: Any, input_getter: Callable[[Any], Any] | None
) -> tuple[guide.Dataset, int]:
    # Labels in memory are compared now, others by TensorFlow as it reads them.
    samples, count = guide.samples(base_dataset)
    known = to_distributions(distributions, TensorFlowTensors())
    agreement = Agreement(known, base_dataset, count)
    if isinstance(base_dataset, list | tuple):
        agreement.require_all(find_labels(to_samples(base_dataset), (tuple,)))
    # Rows in the order of the samples, without a copy if that is their own.
    in_order = known.id_kind == "int" and len(known) >= count and np.array_equal(known.ids[:count], np.arange(count))
    rows = known.probs[:count] if in_order else np.stack([find_row(known, i) for i in range(count)])
    return guide.join_rows(samples, rows, input_getter, agreement.numbers()), count
