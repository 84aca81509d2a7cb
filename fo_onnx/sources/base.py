"""The parts that sources share: facts from their annotations and first row, and reading from any position on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import cached_property
from typing import Any

import numpy as np

from ..contracts.batch import Array, Batch, Inputs
from ..contracts.options import DataOptions
from .annotations import RowAnnotations, describe_preprocessing, sample_positions
from .batching import Batcher, Item, ReadRows, stack_like
from .fingerprint import fingerprint


class AnnotatedSource(ABC):
    """The facts that every source states, as in `fo_onnx.contracts.Source`."""

    in_memory = is_sliced = False
    sequential = False
    assumed_batch: Inputs | None = None
    carried_names: tuple[str, ...] | None = None
    """What the labels that rows carry count, if the data say so."""
    _allow_shape_change = False
    _hint = Batcher.hint

    def __init__(self, options: DataOptions, annotations: RowAnnotations) -> None:
        self.id_kind = annotations.id_kind
        self.preprocessing: dict[str, Any] = describe_preprocessing(options)
        self._options = options
        self._annotations = annotations

    @property
    @abstractmethod
    def _first(self) -> ReadRows | None:
        """Return the first row that can be read, whose names and dtypes all others take."""

    @property
    def _batcher(self) -> Batcher:
        first = self._first  # it decides how the others are read
        return Batcher(self._annotations, self._options.on_error, first, self._allow_shape_change, self._hint)

    @property
    def has_labels(self) -> bool:
        # The first row is read only if labels are not known up front.
        return self._annotations.labels is not None or (self._first is not None and self._first.labels is not None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        labels = self._annotations.labels
        return self.carried_names if labels is None else labels.class_names

    @property
    def columns_named(self) -> bool:
        labels = self._annotations.labels
        return self.carried_names is not None if labels is None else labels.own_numbers

    def annotations(self, start: int, stop: int) -> tuple[Array, Array | None]:
        positions = np.arange(start, stop, dtype=np.int64)
        return self._annotations.ids_at(positions), self._annotations.labels_at(positions)


class PositionalSource(AnnotatedSource):
    """Rows that can be read from any position on, again and again."""

    def __init__(self, length: int, options: DataOptions, annotations: RowAnnotations) -> None:
        super().__init__(options, annotations)
        annotations.check_length(length, options.limit)
        self.length: int = length if options.limit is None else min(length, options.limit)
        self._peeked: tuple[int, Batch] | None = None

    @abstractmethod
    def _items(self, start: int, size: int) -> Generator[Item, None, None]:
        """Yield the rows from position `start` on, read for batches of `size` rows."""

    @abstractmethod
    def _items_at(self, positions: Iterable[int]) -> Iterator[Item]:
        """Yield the rows at `positions`, which ascend."""

    def _head(self, n: int) -> Iterator[Item]:
        """Yield rows from the first on, of which about `n` will be taken."""
        return self._items(0, n)

    @cached_property
    def _first(self) -> ReadRows | None:
        for item in self._head(64):
            if isinstance(item, ReadRows):
                return item.cut(0, 1)
            if self._options.on_error == "fail":
                break
        return None

    def peek(self, n: int) -> Batch:
        if self._peeked is None or self._peeked[0] != n:
            self._peeked = n, self._batcher.peek(self._head(n), n)
        return self._peeked[1]

    def sample(self, n: int, start: int) -> Inputs:
        return stack_like(self._first, self._items_at(sample_positions(self.length, n, start)))

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        batcher = self._batcher  # before any thread reads rows
        with closing(self._items(start, size)) as items:
            yield from batcher.batches(items, size, position=start)

    def fingerprint(self) -> str:
        return fingerprint(self.length, self._items_at(sample_positions(self.length)), self._annotations)
