"""Signals that ask a process to end: the first one ends a run, and no later one destroys what that run has kept.

Python raises KeyboardInterrupt wherever the main thread happens to be, also in the middle of a lock's own code, and a
second one while the first one is being answered. So signals are put off while rows are kept, and while the main thread
waits.
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
"""People press twice within this time, and mean it once."""
PATIENCE_S = 10.0
"""A disk is taken to hang after this time, and one signal is enough."""
POLL_S = 0.05
"""A wait in the main thread puts a signal off for this time at most."""


class SignalGuard:
    """The handler of `SIGNALS` within a block. It delivers them until one raises, or puts them off from `put_off` on.

    A process that hangs while signals are put off can still be ended: by a second one, 1 s after that began or later,
    or by any one after 10 s.
    """

    def __init__(self, *, like_ctrl_c: bool = False) -> None:
        """Change no handler yet; `install` does.

        Args:
            like_ctrl_c: Whether SIGTERM and SIGHUP raise KeyboardInterrupt where they would just end the process.
        """
        self._like_ctrl_c = like_ctrl_c
        self._before: dict[int, Handler] = {}
        self._arrived: list[int] = []
        self._off_since_s: float | None = None
        self._ignores_later = self._has_raised = False

    @property
    def puts_off(self) -> bool:
        """Return whether signals are put off."""
        return self._off_since_s is not None

    def install(self) -> None:
        """Replace the handlers that there are."""
        for number in SIGNALS:
            before = signal.getsignal(number)
            # What is ignored (nohup) stays so; what was not set by Python could not be put back.
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self)

    def remove(self) -> None:
        """Put the handlers back."""
        for number, before in self._before.items():
            after = signal.SIG_IGN if self._ignores_later else before
            if signal.getsignal(number) is self:
                signal.signal(number, after)

    def ignore_afterwards(self) -> None:
        """Let no signal disturb the end of the process that follows."""
        self._ignores_later = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append(number)
        if self._off_since_s is None:
            self.deliver()
            return
        # Put off, unless the process seems to hang.
        waited_s = time.monotonic() - self._off_since_s
        if waited_s > PATIENCE_S or (waited_s > IMPATIENT_S and len(self._arrived) > 1):
            self.deliver()

    def put_off(self) -> None:
        """Put signals off from now on."""
        self._off_since_s = time.monotonic()

    def deliver_again(self, ending: Sequence[BaseException | None]) -> None:
        """Deliver signals again, and those that were put off; after one whose handler has raised they stay so.

        Args:
            ending: As in `finish`.
        """
        if not self._has_raised:
            self._off_since_s = None
            self.finish(ending)

    def finish(self, ending: Sequence[BaseException | None]) -> None:
        """Deliver the signals that were put off.

        Args:
            ending: The exceptions that are being answered. If one of these is an interrupt, or one was delivered
                already, another one asks for what is happening already, and is dropped.
        """
        interrupted = self._has_raised or any(isinstance(err, KeyboardInterrupt | SystemExit) for err in ending)
        # Ten presses are one.
        self._arrived = list(dict.fromkeys(self._arrived))
        while self._arrived:
            try:
                self.deliver()
            except BaseException:
                if not interrupted:
                    raise

    def deliver(self) -> None:
        """Deliver the signals that have arrived. After one whose handler raises, all others are put off."""
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
"""The guard in force, of the main thread."""


def _in_main_thread() -> bool:
    # Elsewhere Python delivers no signals, and lets nobody set a handler.
    return threading.current_thread() is threading.main_thread()


@contextmanager
def one_interrupt(*, like_ctrl_c: bool = False) -> Iterator[SignalGuard]:
    """Surround what keeps rows when it is interrupted: one signal ends it, and later ones wait until it has ended.

    Within another such block, and outside of the main thread, nothing changes.

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
        finally:  # also if a signal came just before it
            guard.remove()
            _guard = None
            guard.finish([ending])


@contextmanager
def signals_deferred(ending: BaseException | None = None) -> Iterator[SignalGuard]:
    """Put `SIGNALS` off until the end of the block, in the main thread.

    Args:
        ending: The exception that the block answers, if it cleans up. If that is an interrupt, another one is dropped.

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
            guard.deliver_again([ending, error])


def wait_until(step: Callable[[float | None], bool], timeout_s: float | None = None) -> bool:
    """Wait by `step`, for example ``event.wait``. An interrupt never breaks a step: it is delivered between two steps.

    Args:
        step: Waits for up to so many seconds, and returns whether what was waited for is there.
        timeout_s: The most seconds to wait; ``None`` waits for ever.

    Returns:
        Whether it is there.
    """
    if not _in_main_thread():
        return step(timeout_s)
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    # Whoever puts signals off already delivers them afterwards.
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
