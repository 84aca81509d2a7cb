"""Anything that can be iterated over, of samples or of batches, once or again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..options import DataOptions
from ..protocols import Array, Batch
from ..run_control import current
from .assembly import Assembly, Item, Rows, Unreadable
from .beside import beside, preprocessing
from .fingerprints import fingerprint
from .structure import Plan, Structure
from .tree import Convert, as_array

SAMPLED = 16
"""How many of the first rows a fingerprint counts, and are always kept for `peek`."""


class IterableSource:
    """The rows of an iterable, cut anew into batches of the size asked for.

    The first rows are kept, so that they can be looked at again while and after the iterable is read.

    Args:
        data: An iterator (one pass) or an iterable, of samples or of batches.
        options: How rows are read.
        convert: Makes an array of a leaf.
        batched: Whether an element is a batch; ``None`` lets the first element tell.
        length: Number of rows, where the caller knows it.
    """

    in_memory = False
    sequential = True
    columns_named = False

    def __init__(
        self,
        data: Iterable[Any],
        options: DataOptions,
        convert: Convert = as_array,
        *,
        batched: bool | None = None,
        length: int | None = None,
    ) -> None:
        self._data = data
        self._options = options
        self._structure = Structure(options, convert)
        self._beside = beside(options)
        self._batched = batched
        self._one_pass = hasattr(data, "__next__")
        self._known_length = length
        self._plan: Plan | None = None
        self._first: Rows | None = None
        self._head: list[Item] = []
        self._stream: Iterator[Item] | None = None
        self._ended = False
        self._claimed = False
        self.id_kind = self._beside.ids.kind
        self.preprocessing = preprocessing(options)
        if length is not None:
            self._beside.check_length(length, options.limit)

    @property
    def length(self) -> int | None:
        """Number of rows, where it is known before the end."""
        length = self._known_length
        if length is None and not self._one_pass and isinstance(self._data, Sized):
            self._fill(1)
            # The length of what gives batches counts batches.
            length = len(self._data) if self._plan is None or not self._plan.batched else None
        limit = self._options.limit
        return length if length is None or limit is None else min(length, limit)

    @property
    def has_labels(self) -> bool:
        """Whether batches carry labels. Reads the first rows, unless labels were given."""
        if self._beside.labels is not None:
            return True
        self._fill(1)
        return self._plan is not None and self._plan.has_labels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where the labels that were given are text."""
        return None if self._beside.labels is None else self._beside.labels.class_names

    def _items(self) -> Iterator[Item]:
        try:
            iterator = iter(self._data)
        except Exception as err:
            yield Unreadable(err, last=True)
            return
        while True:
            try:
                element = next(iterator)
                if self._plan is None:
                    batched = self._batched if self._batched is not None else self._structure.is_batch(element)
                    self._plan = self._structure.plan(element, batched)
            except StopIteration:
                return
            except Exception as err:
                yield Unreadable(err, last=True)
                return
            for item in self._structure.items(element, self._plan):
                if isinstance(item, Unreadable) or len(item):
                    yield item

    def _limited(self, items: Iterator[Item]) -> Iterator[Item]:
        left = self._options.limit
        if left is None:
            yield from items
            return
        while left > 0:
            item = next(items, None)
            if item is None:
                return
            rows = 1 if isinstance(item, Unreadable) else len(item)
            yield item if isinstance(item, Unreadable) else item.cut(0, min(left, rows))
            left -= rows

    def _fill(self, n: int) -> None:
        """Reads into the head until it holds `n` readable rows, the end, or a failure that ends everything."""
        if self._claimed:
            return
        if self._stream is None:
            self._stream = self._limited(self._items())
        have = _readable(self._head)
        while have < n and not self._ended:
            current().check("while a row was being read")
            item = next(self._stream, None)
            if item is None:
                self._ended = True
                break
            self._head.append(item)
            if isinstance(item, Rows):
                have += len(item)
                self._first = self._first or item.cut(0, 1)
            elif item.last or self._options.on_error == "fail":
                self._ended = True

    @property
    def _assembly(self) -> Assembly:
        # Batches that a loader pads one by one differ in shape; samples of one batch must not.
        may_cut = self._plan is not None and self._plan.batched and self._structure.transform is None
        return Assembly(self._beside, self._options.on_error, self._first, may_cut=may_cut)

    def peek(self, n: int) -> Batch:
        """See `fo_onnx.protocols.Source`. Where shapes change among the first rows, those before the change."""
        self._fill(max(n, 1))
        head: Iterable[Item] = self._head
        if self._claimed and _readable(self._head) < n and not self._ended:
            if self._one_pass:
                raise DataError(
                    f"the first {n} rows cannot be looked at any more: the iterator was read on, and only "
                    f"{_readable(self._head)} were kept. Look at them before, or give data that can be iterated over "
                    "again."
                )
            head = self._limited(self._items())
        return self._assembly.peek(head, n)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.protocols.Source`. A second pass over a one-pass iterator raises a `DataError`."""
        if self._claimed and self._one_pass:
            raise DataError(
                "the data are an iterator that has been read already, and can be read only once. Make a new one for "
                "each run, or give a sequence or an object that can be iterated over again."
            )
        self._fill(SAMPLED)
        if self._claimed or self._stream is None:
            items = self._limited(self._items())
        else:
            self._claimed = True
            items = chain(list(self._head), self._stream)
        yield from self._assembly.batches(items, size, start=start, finish=partial(self._check_end))

    def _check_end(self, rows: int) -> None:
        limit = self._options.limit
        if limit is None or rows < limit:
            self._beside.check_length(rows)

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """See `fo_onnx.protocols.Source`."""
        return self._beside.between(start, stop)

    def fingerprint(self) -> str:
        """See `fo_onnx.protocols.Source`; the sample is the first rows."""
        self._fill(SAMPLED)
        rows: list[Item] = []
        for item in self._head:
            if isinstance(item, Unreadable):
                rows.append(item)
            else:
                rows.extend(item.cut(i, i + 1) for i in range(min(len(item), SAMPLED)))
            if len(rows) >= SAMPLED:
                break
        return fingerprint(self.length, rows[:SAMPLED], self._beside)


def _readable(items: list[Item]) -> int:
    return sum(len(item) for item in items if isinstance(item, Rows))
