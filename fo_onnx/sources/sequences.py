"""Rows that are read one at a time: datasets with ``__getitem__``, files of images, anything with a transform."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from ..contracts.options import DataOptions
from .annotations import RowAnnotations
from .base import PositionalSource
from .batching import Batcher, Item, Unreadable
from .elements import ElementParser
from .nested import Convert, as_array
from .read_ahead import in_threads


class RowSource(PositionalSource):
    """Rows that are read by position, one by one; with `num_workers` that many threads read them ahead, in order."""

    def __init__(
        self,
        read: Callable[[int], Any],
        length: int,
        options: DataOptions,
        annotations: RowAnnotations,
        convert: Convert = as_array,
        *,
        hint: str = Batcher.hint,
    ) -> None:
        """Read no row yet. One for which `read` raises is a bad row; `hint` says what to do about rows of unequal shape."""
        super().__init__(length, options, annotations)
        self._read = read
        self._parser = ElementParser(options, convert)
        self._hint = hint

    def _item(self, position: int) -> Item:
        try:
            element = self._read(position)
        except Exception as err:
            return Unreadable(err)
        return self._parser.parse_sample(element)

    def _items_at(self, positions: Iterable[int]) -> Iterator[Item]:
        return map(self._item, positions)

    def _head(self, n: int) -> Iterator[Item]:
        return self._items_at(range(self.length))  # no thread reads further than it is asked for

    def _items(self, start: int, size: int) -> Generator[Item, None, None]:
        workers, positions = self._options.num_workers, range(start, self.length)
        if workers:
            yield from in_threads(self._item, positions, workers, max(size, 2 * workers), "fo-onnx-rows")
        else:
            yield from map(self._item, positions)
