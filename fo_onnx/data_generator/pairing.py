"""Pair the samples of a dataset with their distributions, for training and evaluation; in plain Python."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from typing import Any, Self

from ..distributions import Distributions
from ..errors import DataError, RowNotFoundError
from ..sources.arrays import is_arrays
from ..sources.nested import as_array, common_length, make_sliceable, map_leaves, named_leaves
from ..sources.opening import is_sequence
from .agreement import Agreement
from .tensors import NumpyTensors, Tensors, to_distributions


class FirstOrderDataset:
    """A dataset whose items are (input, label, distribution), or (input, distribution) if samples carry no label."""

    tensors: Tensors = NumpyTensors()
    pair_types: tuple[Any, ...] = (tuple,)
    """Types of samples that hold an input and a label; a list is a row of features unless it is named here."""

    def __init__(self, base_dataset: Any, distributions: Any, input_getter: Callable[[Any], Any] | None = None) -> None:
        """Pair both. Labels of samples in memory are compared at once, those of others as samples are read.

        Args:
            base_dataset: Anything with ``__len__`` and ``__getitem__``, or arrays (n, …) in a tuple or dict.
            distributions: A dict from position to row, a `Distributions`, or the path of a file of them.
            input_getter: Takes a sample and returns its input; by default the first part of a pair, or all of the sample.

        Raises:
            DataError: Samples cannot be taken from `base_dataset` by position; or it is not the one that the distributions
                are of: it has more or fewer samples, or labels that contradict theirs.
        """
        self.base_dataset, self.input_getter = to_samples(base_dataset), input_getter
        self.distributions = to_distributions(distributions, self.tensors)
        self.agreement = Agreement(self.distributions, self.base_dataset, len(self.base_dataset))
        self.agreement.require_all(find_labels(self.base_dataset, self.pair_types))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.base_dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return one item. Raises `KeyError` if there is no distribution for `index`, `DataError` if its label is another."""
        index = operator.index(index)
        index = index + len(self) if index < 0 else index
        # Take the sample apart.
        sample = self.base_dataset[index]
        row = self.tensors.tensor(find_row(self.distributions, index))
        model_input = take_input(sample, self.input_getter, self.pair_types)
        # A label must be the one that the row was generated with.
        if not isinstance(sample, self.pair_types) or len(sample) < 2:
            return model_input, row
        self.agreement.require(index, sample[1])
        return model_input, sample[1], row

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the items in order."""
        # Without it Python would go on until an IndexError, which not every dataset raises.
        return (self[i] for i in range(len(self)))


class _Columns:
    """The rows of arrays in a tuple or dict, as samples."""

    def __init__(self, arrays: Any) -> None:
        self._arrays = map_leaves(arrays, make_sliceable, lists_are_leaves=True)
        self._length = common_length(named_leaves(self._arrays), None)
        self.labels = arrays[1] if isinstance(arrays, tuple) and len(arrays) >= 2 else None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return map_leaves(self._arrays, operator.itemgetter(index))


class SimpleDataLoader:
    """Batches of a dataset as lists of its items, with `shuffle` in another random order (of Python's `random`) each time."""

    def __init__(self, dataset: Any, batch_size: int = 64, shuffle: bool = False) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, max(1, int(batch_size)), bool(shuffle)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        order = list(range(len(self.dataset)))
        if self.shuffle:
            random.shuffle(order)
        for start in range(0, len(order), self.batch_size):
            yield self.collate([self.dataset[i] for i in order[start : start + self.batch_size]])

    def collate(self, items: list[Any]) -> Any:
        """Return a batch of items."""
        return items

    @classmethod
    def output_dataloader(
        cls,
        base_dataset: Any,
        distributions: Any,
        *,
        batch_size: int = 64,
        shuffle: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        input_getter: Callable[[Any], Any] | None = None,
    ) -> Self:
        """Return batches of samples with their distributions: of (input, label, row), or (input, row) without labels.

        `base_dataset`, `distributions` and `input_getter` are those of `FirstOrderDataset`, and its errors are raised. With
        `shuffle` the order is another random one each time. `num_workers` and `pin_memory` are torch's, and do nothing here.
        """
        return cls(FirstOrderDataset(base_dataset, distributions, input_getter), batch_size, shuffle)


def to_samples(dataset: Any) -> Any:
    """Return a dataset whose samples can be taken by position: itself, or the rows of arrays in a tuple or dict.

    Raises a `DataError` for a loader, and for what else has no samples by position.
    """
    if isinstance(dataset, tuple | dict) and is_arrays(dataset):
        return _Columns(dataset)
    if not is_sequence(dataset):
        raise DataError(
            f"samples cannot be taken by position from a {type(dataset).__name__}: a dataset with __len__ and __getitem__ was "
            "expected. Of a loader give its dataset."
        )
    return dataset


def take_input(sample: Any, input_getter: Callable[[Any], Any] | None, pair_types: tuple[Any, ...]) -> Any:
    """Return the model's input in a sample or batch: by `input_getter`, else the first part of a pair, else all of it."""
    if input_getter is not None:
        return input_getter(sample)
    return sample[0] if isinstance(sample, pair_types) and sample else sample


def find_row(distributions: Distributions, position: int) -> Any:
    """Return the distribution of a sample. Raises `RowNotFoundError`, which is a `KeyError`, naming it."""
    try:
        return distributions[position]
    except RowNotFoundError as err:
        raise RowNotFoundError(f"there is no distribution for the sample at index {position}. {err.args[0]}") from None


def find_labels(dataset: Any, pair_types: tuple[Any, ...]) -> Any:
    """Return labels that cost nothing to read: of arrays, torch's ``TensorDataset``, lists; ``None`` for other samples."""
    if isinstance(dataset, list):
        pairs = all(isinstance(s, pair_types) and len(s) >= 2 for s in dataset)
        return [s[1] for s in dataset] if pairs else None
    # A column of its own.
    columns: Any = getattr(dataset, "tensors", ()) if type(dataset).__name__ == "TensorDataset" else ()
    labels = dataset.labels if isinstance(dataset, _Columns) else columns[1] if len(columns) >= 2 else None
    if labels is None:
        return None
    array = as_array(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    return array if array.ndim and len(array) == len(dataset) else None
