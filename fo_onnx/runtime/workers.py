"""Runners side by side over one stream of batches, with results in the order of the stream.

A worker thread takes the next batch itself, runs it, and hands the results that are due on. Nothing is queued between
threads: for arrays in memory such queues cost more than they bring. The calling thread only waits, so that Ctrl-C
reaches it at once and ends the runs in progress.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..contracts.batch import Batch
from ..contracts.runner import Runner, RunOutput
from ..control.run_control import RunControl, RunEnded
from ..control.signals import signals_deferred, wait_until
from .session import GRACE_S

Deliver = Callable[[Batch, RunOutput | None], None]


@dataclass
class Failure(Exception):
    """A runner failed on a batch.

    Attributes:
        error: What it raised.
        left: The batches that were read and whose results were not handed on, in order; the first is the failing one.
        then: What reading the batch after these raised, if it did.
    """

    error: BaseException
    left: list[Batch]
    then: BaseException | None = None


def run_batches(runners: Sequence[Runner], batches: Iterator[Batch], deliver: Deliver, control: RunControl) -> None:
    """Run every batch, on a single native runner in the calling thread, on others in threads; see `run_inline`, `run_in_threads`."""
    if len(runners) == 1 and runners[0].kind == "native":
        run_inline(runners[0], batches, deliver, control)
    else:
        run_in_threads(runners, batches, deliver, control)


def run_inline(runner: Runner, batches: Iterator[Batch], deliver: Deliver, control: RunControl) -> None:
    """Run every batch in the calling thread, as models of a framework want it.

    Raises:
        Failure: The runner failed; everything before that batch was delivered.
        RunEnded: `control` ended the run.
    """
    for batch in batches:
        control.check()
        try:
            output = runner.run(batch.inputs) if len(batch) else None
        except Exception as err:
            raise Failure(err, [batch]) from err
        # An interrupt in the middle would leave what takes the rows in an unknown state.
        with signals_deferred():
            deliver(batch, output)


def run_in_threads(runners: Sequence[Runner], batches: Iterator[Batch], deliver: Deliver, control: RunControl) -> None:
    """Run every batch on whichever runner is free; `deliver` gets them in order, one at a time.

    Raises:
        Failure: A runner failed; everything before that batch was delivered.
        RunEnded: `control` ended the run.
        BaseException: What `batches` or `deliver` raised, after everything before it was delivered.
    """
    pool = _Pool(runners, batches, deliver, control)
    threads = [
        threading.Thread(target=pool.work, args=(r,), name=f"fo-onnx-{i}", daemon=True) for i, r in enumerate(runners)
    ]
    try:
        for thread in threads:
            thread.start()
        # Not Thread.join: on Python 3.11 an interrupted join reports a live thread as dead.
        if not wait_until(pool.finished.wait, control.left_s()):
            control.let_calls_end()
            raise control.time_up()
    except BaseException as err:
        with signals_deferred(err):
            pool.stop()
        raise
    pool.raise_outcome()


class _Pool:
    def __init__(
        self, runners: Sequence[Runner], batches: Iterator[Batch], deliver: Deliver, control: RunControl
    ) -> None:
        self._batches, self._deliver, self._control = batches, deliver, control
        self._reading = threading.Lock()
        self._state = threading.Condition()
        self._read = 0
        self._due = 0
        self._undelivered: dict[int, Batch] = {}
        self._done: dict[int, RunOutput | None] = {}
        self._window = 2 * len(runners) + 2
        self._delivering = self._stopped = self._exhausted = False
        self._failed: tuple[int, BaseException] | None = None
        self._unreadable: BaseException | None = None
        self._undeliverable: BaseException | None = None
        self._working = len(runners)
        self.finished = threading.Event()

    def work(self, runner: Runner) -> None:
        try:
            with self._control.entered():
                while (taken := self._take()) is not None:
                    index, batch = taken
                    try:
                        output = runner.run(batch.inputs) if len(batch) else None
                    except BaseException as err:
                        with self._state:
                            if self._failed is None or index < self._failed[0]:
                                self._failed = (index, err)
                            self._state.notify_all()
                        return
                    self._hand_on(index, output)
        finally:
            with self._state:
                self._working -= 1
                if self._working == 0:
                    self.finished.set()

    def stop(self) -> None:
        """End the runs in progress, and keep late results from being delivered."""
        with self._state:
            self._stopped = True
            self._state.notify_all()
        self._control.stop()
        self.finished.wait(GRACE_S)
        with self._state:
            self._state.wait_for(lambda: not self._delivering)

    def raise_outcome(self) -> None:
        if self._undeliverable is not None:
            raise self._undeliverable
        if self._failed is not None:
            if isinstance(self._failed[1], RunEnded):
                raise self._failed[1]
            left = [self._undelivered[i] for i in sorted(self._undelivered)]
            raise Failure(self._failed[1], left, self._unreadable)
        if self._unreadable is not None:
            raise self._unreadable

    def _take(self) -> tuple[int, Batch] | None:
        with self._reading:
            with self._state:
                self._state.wait_for(lambda: self._halted() or self._read - self._due < self._window)
                if self._halted():
                    return None
            try:
                batch = next(self._batches)
            except StopIteration:
                batch = None
            except BaseException as err:
                with self._state:
                    self._exhausted = True
                    self._unreadable = err
                return None
            with self._state:
                if batch is None:
                    self._exhausted = True
                    return None
                index, self._read = self._read, self._read + 1
                self._undelivered[index] = batch
                return index, batch

    def _halted(self) -> bool:
        return self._stopped or self._exhausted or self._failed is not None

    def _hand_on(self, index: int, output: RunOutput | None) -> None:
        """Deposit a result; the thread that deposits the next due one delivers until there is none."""
        with self._state:
            self._done[index] = output
            if self._delivering:
                return
            self._delivering = True
        try:
            while True:
                with self._state:
                    if self._due not in self._done or self._stopped:
                        self._delivering = False
                        self._state.notify_all()
                        return
                    due = self._due
                    batch, result = self._undelivered[due], self._done.pop(due)
                self._deliver(batch, result)
                with self._state:
                    del self._undelivered[due]
                    self._due += 1
                    self._state.notify_all()
        except BaseException as err:
            with self._state:
                self._undeliverable, self._stopped, self._delivering = err, True, False
                self._state.notify_all()
