"""Anything that can be iterated over, of samples or of batches, once or again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import chain
from typing import Any

from ..contracts.batch import Batch, Inputs
from ..contracts.options import DataOptions
from ..control.run_control import current
from ..errors import DataError
from .annotations import annotate_rows
from .base import AnnotatedSource
from .batching import Item, ReadRows, Unreadable, take_rows
from .class_labels import find_class_names
from .elements import ElementParser
from .fingerprint import fingerprint
from .nested import Convert, as_array
from .row_order import require_fixed_order

SAMPLED = 16
"""The first rows that a fingerprint counts, and that always stay in memory for `peek`."""


class IterableSource(AnnotatedSource):
    """The rows of an iterable, cut anew into batches of the size asked for.

    The first rows stay in memory, so that they can be looked at again while and after the iterable is read.

    Args:
        data: An iterator (one pass) or an iterable, of samples or of batches.
        options: How rows are read.
        convert: Makes an array of a leaf.
        batched: Whether an element is a batch; ``None`` lets the first element say.
        length: Number of rows, if the caller knows it.
        gives_samples: Whether elements are samples if neither `batched`, the model nor a label says it.

    Raises:
        DataError: A stream of Hugging Face that is shuffled without a seed.
    """

    sequential = True

    def __init__(
        self,
        data: Iterable[Any],
        options: DataOptions,
        convert: Convert = as_array,
        *,
        batched: bool | None = None,
        length: int | None = None,
        gives_samples: bool = False,
    ) -> None:
        require_fixed_order(data, options)
        super().__init__(options, annotate_rows(options))
        self.carried_names = find_class_names(data, options)
        self._data = data
        self._parser = ElementParser(options, convert, gives_samples=gives_samples)
        self._batched = batched
        self._known_length = length
        self._one_pass = hasattr(data, "__next__")
        # The first rows, and the stream that they come from, which `batches` continues once.
        self._head: list[Item] = []
        self._stream = self._items()
        self._ended = self._stream_used = False
        if length is not None:
            self._annotations.check_length(length, options.limit)

    @property
    def length(self) -> int | None:
        """Return the number of rows, if it is known before the end."""
        length = self._known_length
        if length is None and not self._one_pass and isinstance(self._data, Sized):
            self._fill_head(1)
            # The length of what gives batches counts batches.
            length = None if self._is_batched else find_length(self._data)
        limit = self._options.limit
        return length if length is None or limit is None else min(length, limit)

    @property
    def assumed_batch(self) -> Inputs | None:  # type: ignore[override]
        """Return the first element's inputs, if only its axes say that it is a batch."""
        self._fill_head(1)
        rows = next((item for item in self._head if isinstance(item, ReadRows)), None)
        return rows.inputs if rows is not None and self._parser.is_assumed else None

    @property
    def _is_batched(self) -> bool:
        return self._parser.layout is not None and self._parser.layout.batched

    @property
    def _first(self) -> ReadRows | None:
        self._fill_head(1)
        return next((item.cut(0, 1) for item in self._head if isinstance(item, ReadRows)), None)

    @property
    def _allow_shape_change(self) -> bool:  # type: ignore[override]
        # Batches that a loader pads one by one differ in shape; samples of one batch must not.
        return self._is_batched and self._options.transform is None

    def _items(self) -> Iterator[Item]:
        items, limit = self._all_items(), self._options.limit
        return items if limit is None else take_rows(items, limit, count_unreadable=True)

    def _all_items(self) -> Iterator[Item]:
        try:
            for element in self._data:
                for item in self._parser.parse_element(element, self._batched):
                    if isinstance(item, Unreadable) or len(item):
                        yield item
        except Exception as err:
            yield Unreadable(err, last=True)

    def _fill_head(self, n: int) -> None:
        """Read on until the head holds `n` readable rows, the end, or a failure that ends everything."""
        readable = _count_readable(self._head)
        while readable < n and not (self._ended or self._stream_used):
            current().check("while a row was being read")
            item = next(self._stream, None)
            if item is None:
                self._ended = True
                break
            self._head.append(item)
            if isinstance(item, ReadRows):
                readable += len(item)
            else:
                self._ended = item.last or self._options.on_error == "fail"

    def sample(self, n: int, start: int) -> Inputs:
        return {}

    def peek(self, n: int) -> Batch:
        # If shapes change among the first rows, only those before the change are given.
        self._fill_head(max(n, 1))
        rows = _count_readable(self._head)
        if rows >= n or self._ended or not self._stream_used:
            return self._batcher.peek(iter(self._head), n)
        if self._one_pass:
            raise DataError(
                f"the first {n} rows cannot be looked at any more: the iterator was read on, and only {rows} were kept. "
                "Look at them before, or give data that can be iterated over again."
            )
        return self._batcher.peek(self._items(), n)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        if self._stream_used and self._one_pass:
            raise DataError(
                "the data are an iterator that has been read already, and can be read only once. Make a new one for "
                "each run, or give a sequence or an object that can be iterated over again."
            )
        self._fill_head(SAMPLED)
        items = self._items() if self._stream_used else chain(list(self._head), self._stream)
        self._stream_used = True
        rows = yield from self._batcher.batches(items, size, start=start)
        # Only the end says how many rows there are.
        limit = self._options.limit
        if limit is None or rows < limit:
            self._annotations.check_length(rows)

    def fingerprint(self) -> str:
        # The sample is the first rows: reading others would use up an iterator.
        self._fill_head(SAMPLED)
        first = take_rows(iter(self._head), SAMPLED, count_unreadable=True)
        return fingerprint(self.length, first, self._annotations)


def find_length(data: Any) -> int | None:
    """Return the length of data; ``None`` if they have none, or a ``__len__`` that raises, as torch's loaders of streams do."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def _count_readable(items: list[Item]) -> int:
    return sum(len(item) for item in items if isinstance(item, ReadRows))
