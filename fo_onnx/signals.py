"""Signals that ask a process to end: the first one ends a run, and no later one loses what the first one kept.

Python raises KeyboardInterrupt wherever the main thread happens to be, also in the middle of a lock's own code, and a
second one within the clearing-up of the first. So while rows are kept, and while the main thread waits, signals are put off.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
POLL_S = 0.05
"""How long a wait in the main thread may put a signal off."""


class SignalGuard:
    """The handler of `SIGNALS` within a block. It hands them on until one raises, or puts them off where it is told to.

    Whoever hangs while signals are put off can still be ended: by a second one, 1 s after that began or later, or by any
    after 10 s.
    """

    def __init__(self, *, like_ctrl_c: bool = False) -> None:
        """Sets it up; `install` begins.

        Args:
            like_ctrl_c: Whether SIGTERM and SIGHUP raise KeyboardInterrupt where they would just end the process.
        """
        self._like_ctrl_c = like_ctrl_c
        self._before: dict[int, Handler] = {}
        self._arrived: list[int] = []
        self._off_since_s: float | None = None
        self._ignores = self._has_raised = False

    @property
    def puts_off(self) -> bool:
        """Whether signals are put off."""
        return self._off_since_s is not None

    def install(self) -> None:
        """Puts itself in the place of the handlers that there are."""
        for number in SIGNALS:
            before = signal.getsignal(number)
            # Not what is ignored (nohup), nor what was not set by Python and could not be put back.
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self)

    def remove(self) -> None:
        """Puts the handlers back."""
        for number, before in self._before.items():
            after = signal.SIG_IGN if self._ignores else before
            if signal.getsignal(number) is self:
                signal.signal(number, after)

    def ignore_afterwards(self) -> None:
        """Lets nothing disturb the end of the process that follows."""
        self._ignores = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append(number)
        if self._off_since_s is None:
            self.deliver()
            return
        waited_s = time.monotonic() - self._off_since_s
        if waited_s > PATIENCE_S or (waited_s > IMPATIENT_S and len(self._arrived) > 1):
            self.deliver()

    def put_off(self) -> None:
        """Puts signals off from now on."""
        self._off_since_s = time.monotonic()

    def hand_on(self, ending: Sequence[BaseException | None]) -> None:
        """Hands signals on again, and delivers those that were put off; after one that has raised they stay so.

        Args:
            ending: As in `finish`.
        """
        if not self._has_raised:
            self._off_since_s = None
            self.finish(ending)

    def finish(self, ending: Sequence[BaseException | None]) -> None:
        """Delivers the signals that were put off.

        Args:
            ending: What is under way. If one of these is an interrupt, or one was delivered already, another one asks for
                what is happening already.
        """
        interrupted = self._has_raised or any(isinstance(err, KeyboardInterrupt | SystemExit) for err in ending)
        self._arrived = list(dict.fromkeys(self._arrived))
        while self._arrived:
            try:
                self.deliver()
            except BaseException:
                if not interrupted:
                    raise

    def deliver(self) -> None:
        """Delivers the signals that have arrived. After one whose handler raises, all others are put off."""
        # One that ends the process comes first: an exception would keep the others from being delivered.
        self._arrived.sort(key=lambda number: self._handler(number) != signal.SIG_DFL)
        try:
            while self._arrived:
                number = self._arrived.pop(0)
                handler = self._handler(number)
                if callable(handler):
                    handler(number, None)
                else:
                    signal.signal(number, handler)
                    signal.raise_signal(number)
        except BaseException:
            self._has_raised = True
            self.put_off()
            raise

    def _handler(self, number: int) -> Handler:
        before = self._before[number]
        return _interrupt if self._like_ctrl_c and before == signal.SIG_DFL else before


_guard: SignalGuard | None = None
"""The one in force, of the main thread."""


def _in_main_thread() -> bool:
    # Elsewhere Python delivers no signals, and lets nobody set a handler.
    return threading.current_thread() is threading.main_thread()


@contextmanager
def one_interrupt(*, like_ctrl_c: bool = False) -> Iterator[SignalGuard]:
    """Surrounds what keeps rows when it is interrupted: one signal ends it, and later ones wait until it has ended.

    Within another one, and outside of the main thread, the block is just run.

    Args:
        like_ctrl_c: Whether SIGTERM and SIGHUP interrupt as Ctrl-C does, where they would just end the process.
    """
    global _guard
    guard = SignalGuard(like_ctrl_c=like_ctrl_c)
    if _guard is not None or not _in_main_thread():
        yield _guard or guard
        return
    _guard = guard
    ending = None
    try:
        guard.install()
        yield guard
    except BaseException as err:
        ending = err
        raise
    finally:
        try:
            guard.put_off()
        finally:  # also where a signal came just before it
            guard.remove()
            _guard = None
            guard.finish([ending])


@contextmanager
def signals_deferred(ending: BaseException | None = None) -> Iterator[SignalGuard]:
    """Puts `SIGNALS` off until the end of the block, in the main thread.

    Args:
        ending: Why the block is run, where it clears up. If that is an interrupt, another one is not delivered any more.

    Example:
        >>> with signals_deferred():
        ...     pass  # rows are written
    """
    with one_interrupt() as guard:
        if guard.puts_off or not _in_main_thread():
            yield guard
            return
        guard.put_off()
        error = None
        try:
            yield guard
        except BaseException as err:
            error = err
            raise
        finally:
            guard.hand_on([ending, error])


def wait_until(step: Callable[[float | None], bool], timeout_s: float | None = None) -> bool:
    """Waits by `step`, for example ``event.wait``, which an interrupt never breaks: it comes between two steps.

    Args:
        step: Waits for up to so many seconds, and returns whether what was waited for is there.
        timeout_s: The most seconds to wait; ``None`` waits for ever.

    Returns:
        Whether it is there.
    """
    if not _in_main_thread():
        return step(timeout_s)
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    if _guard is not None and _guard.puts_off:
        return step(timeout_s)
    with signals_deferred() as guard:
        while True:
            left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
            if step(POLL_S if left_s is None else min(left_s, POLL_S)):
                return True
            guard.deliver()
            if left_s == 0.0:
                return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
