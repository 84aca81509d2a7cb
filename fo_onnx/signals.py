"""Signals that ask a process to end: put off while rows are being kept, so that a second one loses none."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, what schedulers and containers send, and what a closed terminal sends. Windows has no SIGHUP."""
IMPATIENT_S = 1.0
"""Within this time people press twice, and mean it once."""
PATIENCE_S = 10.0
"""After this time a disk is taken to hang, and one signal is enough."""


@contextmanager
def signals_deferred(ending: BaseException | None = None) -> Iterator[None]:
    """Puts off `SIGNALS` until the end of the block, in the main thread; elsewhere Python delivers none.

    Whoever hangs in the block can still be ended: by a second signal, 1 s after the block began or later, or by any signal
    after 10 s.

    Args:
        ending: Why the block is run, where it clears up. If that is an interrupt, another one that was put off is not
            delivered any more: it asks for what is happening already.

    Example:
        >>> with signals_deferred():
        ...     pass  # rows are written
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferred = _Deferred()
    try:
        deferred.install()
        yield
    except BaseException as err:
        deferred.end(ending, err)
        raise
    deferred.end(ending)


class _Deferred:
    """A handler that keeps signals for later."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        self._before: dict[int, Handler] = {}
        self._arrived: list[int] = []
        self._ended = False

    def install(self) -> None:
        for number in SIGNALS:
            before = signal.getsignal(number)
            # Not what is ignored (nohup), nor what was not set by Python and could not be put back.
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        waited_s = time.monotonic() - self._begun_s
        if self._ended or waited_s > PATIENCE_S or (waited_s > IMPATIENT_S and self._arrived):
            self._deliver(number, frame)
        else:
            self._arrived.append(number)

    def end(self, *ending: BaseException | None) -> None:
        """Puts the handlers back, and delivers what has arrived."""
        interrupted = any(isinstance(err, KeyboardInterrupt | SystemExit) for err in ending)
        self._ended = True
        for number, before in self._before.items():
            signal.signal(number, before)
        # One that ends the process comes first: an exception would keep the others from being delivered.
        for number in sorted(set(self._arrived), key=lambda number: callable(self._before[number])):
            try:
                self._deliver(number, None)
            except BaseException:
                if not interrupted:
                    raise

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, before)
            signal.raise_signal(number)


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that finished rows are kept.

    What the process was told to ignore (``nohup``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in SIGNALS if n != signal.SIGINT}
    changed = {n: handler for n, handler in before.items() if handler == signal.SIG_DFL}
    try:
        for number in changed:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Lets nothing of `SIGNALS` disturb the end of the process any more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
