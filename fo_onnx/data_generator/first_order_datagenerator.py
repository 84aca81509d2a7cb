"""The guide's framework-agnostic module: any callable, plain Python datasets, numpy rows in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..sources.arrays import is_arrays
from ..sources.opening import is_sequence
from . import evaluating, generator
from .pairing import FirstOrderDataset, SimpleDataLoader

__all__ = ["DataGenerator", "FirstOrderDataGenerator", "FirstOrderDataset", "SimpleDataLoader", "output_dataloader"]


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """For callables over arrays, and models of every framework; see the base class.

    A callable gets the inputs of a batch as one array (n, …), or as a dict of them.
    """

    def getter(self, data: Any) -> Callable[[Any], Any] | None:
        """Return what takes the first part of a dataset's tuples: a callable does not say how many inputs it takes."""
        if self.input_getter is None and is_sequence(self.readable(data)) and not is_arrays(self.readable(data)):
            return _first_of_tuple
        return self.input_getter


class DataGenerator(evaluating.DataGenerator):
    """A model and a dataset; `generate` says how the one does on the other; see the base class."""

    generator = FirstOrderDataGenerator


def output_dataloader(
    base_dataset: Any,
    distributions: Any,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    input_getter: Callable[[Any], Any] | None = None,
) -> SimpleDataLoader:
    """Return batches of samples with their distributions: lists of (input, label, row), or of (input, row) without labels.

    Args:
        base_dataset: Anything with ``__len__`` and ``__getitem__``.
        distributions: A dict from position to row, a `Distributions`, or the path of a file of them.
        batch_size: Samples per batch.
        shuffle: Whether the order is another random one each time.
        num_workers: Without effect here; torch's loader has it.
        pin_memory: Likewise.
        input_getter: Takes a sample and returns its input.
    """
    return SimpleDataLoader(FirstOrderDataset(base_dataset, distributions, input_getter), batch_size, shuffle)


def _first_of_tuple(sample: Any) -> Any:
    return sample[0] if isinstance(sample, tuple) and sample else sample
