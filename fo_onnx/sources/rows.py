"""Sources that read one row at a time: datasets with ``__getitem__``, files of images, anything with a transform."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options import DataOptions
from ..protocols import Array, Batch
from .ahead import CLOSE_WAIT_S
from .assembly import Assembly, Item, Rows, Unreadable
from .beside import Beside, preprocessing, spread
from .fingerprints import fingerprint
from .structure import Plan, Structure


@dataclass(frozen=True)
class _Start:
    plan: Plan | None
    first: Rows | None


class RowSource:
    """Rows that are read by position, one by one; with `num_workers` that many threads read them ahead, in order.

    Args:
        read: Gives the element at a position; what it raises makes the row a bad one.
        length: Number of rows.
        options: How rows are read.
        structure: Takes elements apart.
        beside: Ids and labels.
        class_names: Names of the classes, where they are known.
        made: What is done to rows beside the options' functions, as JSON types.
        hint: What to do about rows of unequal shape, for messages.
    """

    in_memory = False
    sequential = False

    def __init__(
        self,
        read: Callable[[int], Any],
        length: int,
        options: DataOptions,
        structure: Structure,
        beside: Beside,
        *,
        class_names: tuple[str, ...] | None = None,
        made: dict[str, Any] | None = None,
        hint: str = Assembly.hint,
    ) -> None:
        beside.check_length(length, options.limit)
        self.length: int = length if options.limit is None else min(length, options.limit)
        self.id_kind = beside.ids.kind
        self.preprocessing = {**(made or {}), **preprocessing(options)}
        self._read = read
        self._options = options
        self._structure = structure
        self._beside = beside
        self._class_names = class_names
        self._hint = hint
        self._peeked: tuple[int, Batch] | None = None

    @property
    def has_labels(self) -> bool:
        """Whether batches carry labels. Reads the first row, unless labels were given."""
        if self._beside.labels is not None:
            return True
        return self._start.plan is not None and self._start.plan.has_labels

    @property
    def columns_named(self) -> bool:
        """Whether the class names are those of folders rather than of text labels."""
        labels = self._beside.labels
        return self._class_names is not None and (labels is None or labels.class_names is None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that labels count, where they are known."""
        labels = self._beside.labels
        return self._class_names if labels is None or labels.class_names is None else labels.class_names

    @cached_property
    def _start(self) -> _Start:
        """The plan and the first row that can be read; later rows are taken apart and typed as it is."""
        for position in range(self.length):
            item, plan = self._first_item(position)
            if isinstance(item, Rows):
                return _Start(plan, item)
            if self._options.on_error == "fail":
                break
        return _Start(None, None)

    def _first_item(self, position: int) -> tuple[Item, Plan | None]:
        try:
            element = self._read(position)
            plan = self._structure.plan(element, batched=False)
        except Exception as err:
            return Unreadable(err), None
        return self._structure.sample(element, plan), plan

    def _item(self, position: int) -> Item:
        plan = self._start.plan
        if plan is None:
            return self._first_item(position)[0]
        try:
            element = self._read(position)
        except Exception as err:
            return Unreadable(err)
        return self._structure.sample(element, plan)

    @property
    def _assembly(self) -> Assembly:
        return Assembly(self._beside, self._options.on_error, self._start.first, hint=self._hint)

    def peek(self, n: int) -> Batch:
        """See `fo_onnx.protocols.Source`."""
        if self._peeked is None or self._peeked[0] != n:
            self._peeked = n, self._assembly.peek((self._item(i) for i in range(self.length)), n)
        return self._peeked[1]

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.protocols.Source`."""
        assembly = self._assembly
        workers = self._options.num_workers
        if not workers:
            items = (self._item(i) for i in range(start, self.length))
            yield from assembly.batches(items, size, position=start)
            return
        with closing(_in_threads(self._item, range(start, self.length), workers, max(size, 2 * workers))) as ahead:
            yield from assembly.batches(ahead, size, position=start)

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """See `fo_onnx.protocols.Source`."""
        return self._beside.between(start, stop)

    def fingerprint(self) -> str:
        """See `fo_onnx.protocols.Source`."""
        return fingerprint(self.length, (self._item(i) for i in spread(self.length)), self._beside)


def _in_threads(
    function: Callable[[int], Item], positions: range, workers: int, ahead: int
) -> Generator[Item, None, None]:
    """`function` of each position in order, computed by threads that are at most `ahead` positions in front.

    Not an executor's threads: Python waits for those when it exits, however long a row that hangs takes.
    """
    asked: SimpleQueue[tuple[int, Future[Item]] | None] = SimpleQueue()
    waiting: deque[Future[Item]] = deque()

    def work() -> None:
        while (task := asked.get()) is not None:
            position, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(position))
            except BaseException as err:  # it belongs to whoever takes the rows
                future.set_exception(err)

    def ask(position: int) -> None:
        future: Future[Item] = Future()
        waiting.append(future)
        asked.put((position, future))

    threads = [threading.Thread(target=work, name=f"fo-onnx-rows-{i}", daemon=True) for i in range(workers)]
    for thread in threads:
        thread.start()
    try:
        left = iter(positions)
        for position in islice(left, ahead):
            ask(position)
        while waiting:
            item = waiting.popleft().result()
            for position in islice(left, 1):
                ask(position)
            yield item
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            asked.put(None)
        # A row that is being read cannot be cut off; its thread ends after it.
        until_s = time.monotonic() + CLOSE_WAIT_S
        for thread in threads:
            thread.join(max(until_s - time.monotonic(), 0))
