"""Reads ahead in threads, so that a slow source and the model work at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
from contextlib import closing
from itertools import islice, repeat
from queue import SimpleQueue
from typing import TypeVar

from ..contracts.batch import Batch
from ..control.run_control import ThreadCall, current
from ..control.signals import wait_until

T = TypeVar("T")
R = TypeVar("R")
CLOSE_WAIT_S = 0.5


def read_ahead(batches: Iterator[Batch], depth: int = 4) -> Iterator[Batch]:
    """Yield the same batches in the same order, up to `depth` of them read in advance by one thread.

    What `batches` raises is raised after the batches before it. The thread starts with the first ``next`` and ends
    with the last batch, or when the returned generator is closed; `batches`, which it alone uses, is closed with it.

    Example:
        >>> list(read_ahead(iter([1, 2, 3])))
        [1, 2, 3]
    """
    close = getattr(batches, "close", lambda: None)
    with closing(
        in_threads(lambda _: next(batches, None), repeat(None), 1, depth, "fo-onnx-read-ahead", close)
    ) as read:
        # Not a loop over the batches: its variable would keep each in memory while the next one is waited for.
        yield from iter(read.__next__, None)


def in_threads(
    function: Callable[[T], R],
    tasks: Iterable[T],
    workers: int,
    ahead: int,
    name: str,
    close: Callable[[], None] = lambda: None,
) -> Generator[R, None, None]:
    """Yield `function` of each task in order, computed by `workers` threads that are at most `ahead` tasks in front.

    What it raises is raised in its turn. Each thread calls `close` when it ends.

    Waiting for a thread ends with the run that the caller works for (`fo_onnx.control.run_control`). The threads are daemons:
    Python waits for an executor's threads when it exits, however long a row that hangs takes.
    """
    queue: SimpleQueue[tuple[T, futures.Future[R]] | None] = SimpleQueue()
    waiting: deque[futures.Future[R]] = deque()

    def work() -> None:
        while (entry := queue.get()) is not None:
            if entry[1].set_running_or_notify_cancel():
                try:
                    entry[1].set_result(function(entry[0]))
                except BaseException as err:  # KeyboardInterrupt too belongs to whoever takes the results
                    entry[1].set_exception(err)
            del entry  # and the result with it, so that it can be freed
        close()

    def ask(count: int) -> None:
        for task in islice(remaining, count):
            waiting.append(futures.Future())
            queue.put((task, waiting[-1]))

    def is_ready(timeout_s: float | None) -> bool:
        return waiting[0].done() or bool(futures.wait([waiting[0]], timeout_s).done)

    control, remaining = current(), iter(tasks)
    threads = [ThreadCall(work, name) for _ in range(workers)]
    try:
        ask(ahead)
        while waiting:
            if not wait_until(is_ready, control.left_s()):
                raise control.time_up("while a row was being read")
            # One more is read whenever one is handed over.
            ask(1)
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            queue.put(None)
        # A row that is being read cannot be cut off; its thread ends after it.
        until_s = time.monotonic() + CLOSE_WAIT_S
        for thread in threads:
            thread.join(max(until_s - time.monotonic(), 0))
