"""Pair the samples of a dataset with their distributions, for training and evaluation; in plain Python."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from typing import Any, cast

from ..distributions import Distributions
from ..errors import DataError, RowNotFoundError
from ..sources.arrays import is_arrays
from ..sources.nested import leaves, map_leaves
from ..sources.opening import is_sequence
from .agreement import Agreement
from .tensors import NumpyTensors, Tensors, to_distributions


class FirstOrderDataset:
    """A dataset whose items are (input, label, distribution), or (input, distribution) if samples carry no label.

    Attributes:
        base_dataset: The samples, by position.
        distributions: Their distributions, by position.
        input_getter: Takes a sample and returns its input.
    """

    tensors: Tensors = NumpyTensors()
    pair_types: tuple[type, ...] = (tuple,)
    """Types of samples that hold an input and a label; a list is a row of features unless it is named here."""

    def __init__(self, base_dataset: Any, distributions: Any, input_getter: Callable[[Any], Any] | None = None) -> None:
        """Pair both. Labels of samples in memory are compared at once, those of others as samples are read.

        Args:
            base_dataset: Anything with ``__len__`` and ``__getitem__``, or arrays (n, …) in a tuple or dict.
            distributions: A dict from position to row, a `Distributions`, or the path of a file of them.
            input_getter: Takes a sample and returns its input.

        Raises:
            DataError: Samples cannot be taken from `base_dataset` by position; or it is not the one that the distributions
                are of: it has more or fewer samples, or labels that contradict theirs.
        """
        self.base_dataset, self.input_getter = by_position(base_dataset), input_getter
        self.distributions = to_distributions(distributions, self.tensors)
        self.agreement = Agreement(self.distributions, self.base_dataset, len(self.base_dataset))
        labels = labels_in_memory(self.base_dataset, self.pair_types)
        if labels is not None:
            self.agreement.require_all(labels)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.base_dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """One item. Raises `KeyError` if there is no distribution for `index`, `DataError` if its label is another."""
        index = operator.index(index)
        index = index + len(self) if index < 0 else index
        # Take the sample apart.
        sample = self.base_dataset[index]
        row = self.tensors.tensor(row_at(self.distributions, index))
        is_pair = isinstance(sample, self.pair_types)
        plain = sample[0] if is_pair and len(sample) else sample
        model_input = plain if self.input_getter is None else self.input_getter(sample)
        # A label must be the one that the row was generated with.
        if not is_pair or len(sample) < 2:
            return model_input, row
        self.agreement.require(index, sample[1])
        return model_input, sample[1], row

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The items in order."""
        # Without it Python would go on until an IndexError, which not every dataset raises.
        return (self[i] for i in range(len(self)))


class _Columns:
    """The rows of arrays in a tuple or dict, as samples."""

    def __init__(self, arrays: Any) -> None:
        self._arrays = arrays
        lengths = {len(leaf) for leaf in leaves(arrays)}
        if len(lengths) != 1:
            raise DataError(
                f"the arrays of the dataset have unequal numbers of rows: {', '.join(map(str, sorted(lengths)))}."
            )
        (self._length,) = lengths
        self.labels = arrays[1] if isinstance(arrays, tuple) and len(arrays) >= 2 else None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return map_leaves(self._arrays, operator.itemgetter(index))


class SimpleDataLoader:
    """Batches of a dataset as lists of its items.

    Attributes:
        dataset: Anything with ``__len__`` and ``__getitem__``.
        batch_size: Items per batch.
        shuffle: Whether the items come in another random order (of Python's `random`) each time.
    """

    def __init__(self, dataset: Any, batch_size: int = 64, shuffle: bool = False) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, max(1, int(batch_size)), bool(shuffle)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """The batches."""
        order = list(range(len(self.dataset)))
        if self.shuffle:
            random.shuffle(order)
        for start in range(0, len(order), self.batch_size):
            yield self.collate([self.dataset[i] for i in order[start : start + self.batch_size]])

    def collate(self, items: list[Any]) -> Any:
        """Return a batch of items: the list of them."""
        return items

    def in_order(self) -> Any:
        """Return the dataset. Raises `DataError` if the loader shuffles, so that rows could not be told apart."""
        if self.shuffle:
            raise DataError(
                "the loader was made with shuffle=True, so that results could not be matched with samples. Make it with "
                "shuffle=False, or give its dataset."
            )
        return self.dataset


def by_position(dataset: Any) -> Any:
    """Return a dataset whose samples can be taken by position: itself, or the rows of arrays in a tuple or dict.

    Raises:
        DataError: It is a loader, or something else that has no samples by position.
    """
    if isinstance(dataset, tuple | dict) and is_arrays(dataset):
        return _Columns(dataset)
    if not is_sequence(dataset):
        raise DataError(
            f"samples cannot be taken by position from a {type(dataset).__name__}: a dataset with __len__ and __getitem__ was "
            "expected. Of a loader give its dataset."
        )
    return dataset


def row_at(distributions: Distributions, position: int) -> Any:
    """Return the distribution of a sample. Raises `RowNotFoundError`, which is a `KeyError`, naming it."""
    try:
        return distributions[position]
    except RowNotFoundError as err:
        raise RowNotFoundError(f"there is no distribution for the sample at index {position}. {err.args[0]}") from None


def labels_in_memory(dataset: Any, pair_types: tuple[type, ...]) -> Any:
    """Return labels that cost nothing to read: of arrays, torch's ``TensorDataset``, lists; ``None`` for other samples.

    Args:
        dataset: The samples, by position.
        pair_types: Types of samples that hold an input and a label.
    """
    # A list of pairs.
    if isinstance(dataset, list):
        pairs = all(isinstance(s, pair_types) and len(cast(Any, s)) >= 2 for s in dataset)
        return [s[1] for s in dataset] if pairs else None
    # A column of its own.
    labels: Any = None
    if isinstance(dataset, _Columns):
        labels = dataset.labels
    elif type(dataset).__name__ == "TensorDataset" and len(getattr(dataset, "tensors", ())) >= 2:
        labels = dataset.tensors[1]
    if labels is None:
        return None
    array = NumpyTensors().array(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    return array if array.ndim and len(array) == len(dataset) else None
