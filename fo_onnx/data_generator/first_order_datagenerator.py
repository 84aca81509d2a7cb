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

    def choose_getter(self, data: Any) -> Callable[[Any], Any] | None:
        """Return what takes the first part of a dataset's tuples: a callable does not say how many inputs it takes."""
        if self.input_getter is None and is_sequence(data) and not is_arrays(data):
            return self.prepares_batch_inp
        return self.input_getter


class DataGenerator(evaluating.DataGenerator):
    """A model and a dataset; `generate` says how the one does on the other; see the base class."""

    generator = FirstOrderDataGenerator


output_dataloader = SimpleDataLoader.output_dataloader
