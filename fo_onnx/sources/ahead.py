"""Reads batches ahead in a thread, so that a slow source and the model work at the same time."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Iterator

from ..protocols import Batch
from ..run_control import current
from ..signals import wait_until

CLOSE_WAIT_S = 0.5


def read_ahead(batches: Iterator[Batch], depth: int = 4) -> Iterator[Batch]:
    """The same batches in the same order, up to `depth` of them read in advance by one thread.

    What `batches` raises is raised after the batches before it. The thread starts with the first ``next`` and ends
    with the last batch, or when the returned generator is closed; `batches` is closed with it. Waiting for a batch ends with
    the run that the caller works for (`fo_onnx.run_control`).

    Args:
        batches: What is read; used by the thread alone from then on.
        depth: How many batches may wait.

    Example:
        >>> list(read_ahead(iter([1, 2, 3])))
        [1, 2, 3]
    """
    condition = threading.Condition()
    waiting: deque[Batch] = deque()
    failure: list[BaseException] = []
    stopped = False
    ended = False
    finished = threading.Event()

    def work() -> None:
        nonlocal ended
        try:
            for batch in batches:
                with condition:
                    waiting.append(batch)
                    condition.notify_all()
                    condition.wait_for(lambda: stopped or len(waiting) < depth)
                    if stopped:
                        return
        except BaseException as err:  # KeyboardInterrupt too belongs to whoever consumes
            failure.append(err)
        finally:
            try:
                close = getattr(batches, "close", None)
                if close is not None:
                    close()
            except BaseException as err:
                failure.append(err)
            with condition:
                ended = True
                condition.notify_all()
            finished.set()

    taken: list[Batch] = []

    def take(seconds: float | None) -> bool:
        """Takes the next batch where one comes in time. Returns whether one has, or there is none any more."""
        with condition:
            if not condition.wait_for(lambda: waiting or ended, seconds):
                return False
            if waiting:
                taken.append(waiting.popleft())
                condition.notify_all()
            return True

    control = current()
    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name="fo-onnx-read-ahead", daemon=True
    )
    thread.start()
    try:
        while True:
            if not wait_until(take, control.left_s()):
                raise control.time_up("while a row was being read")
            if not taken:
                break
            yield taken.pop()
        if failure:
            raise failure[0]
    finally:
        with condition:
            stopped = True
            condition.notify_all()
        # A row that is being read cannot be interrupted; the thread ends by itself after it. On Python 3.11 an
        # interrupted join() takes a live thread for dead, hence the event.
        if finished.wait(CLOSE_WAIT_S):
            thread.join()
